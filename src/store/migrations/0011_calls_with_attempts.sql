-- A call's attempts stand in its own row, as `store/spelling.rs` spells them: a list of lists of
-- provider, model, outcome, status, nanoseconds, numbers of `Usage` or null, and cost or null.
ALTER TABLE calls ADD COLUMN attempts TEXT NOT NULL DEFAULT '[]';
UPDATE calls SET attempts = (
  SELECT json_group_array(json_array(provider, model, outcome, status, ms * 1000000,
    CASE WHEN input IS NOT NULL
      THEN json_array(input, 0, 0, 0, coalesce(output, 0), 0, 0, 0) END, cost))
  FROM (SELECT * FROM attempts WHERE call = calls.position ORDER BY number));
DROP TABLE attempts;
