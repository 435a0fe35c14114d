-- A call's attempts stand in its own row, as `store/spelling.rs` spells them: a list of lists of
-- provider, model, outcome, status, nanoseconds, numbers of `Usage` or null, and cost or null.
ALTER TABLE calls ADD COLUMN attempts TEXT NOT NULL DEFAULT '[]';
UPDATE calls SET attempts = (
  SELECT json_group_array(json_array(provider, model, outcome, status, ms * 1000000,
    CASE WHEN input IS NOT NULL
      THEN json_array(input, 0, 0, 0, coalesce(output, 0), 0, 0, 0) END, cost))
  FROM (SELECT * FROM attempts WHERE call = calls.position ORDER BY number));
DROP TABLE attempts;
-- Whoever asks in SQL finds them as they were.
CREATE VIEW attempts AS
  SELECT position AS call, attempt.key AS number,
    json_extract(attempt.value, '$[0]') AS provider,
    json_extract(attempt.value, '$[1]') AS model,
    json_extract(attempt.value, '$[2]') AS outcome,
    json_extract(attempt.value, '$[3]') AS status,
    json_extract(attempt.value, '$[4]') / 1000000 AS ms,
    json_extract(attempt.value, '$[5][0]') + json_extract(attempt.value, '$[5][1]')
      + json_extract(attempt.value, '$[5][2]') + json_extract(attempt.value, '$[5][3]') AS input,
    json_extract(attempt.value, '$[5][4]') AS output,
    json_extract(attempt.value, '$[6]') AS cost
  FROM calls, json_each(calls.attempts) AS attempt;
