-- The same for Postgres, which makes JSON by other names.
ALTER TABLE calls ADD COLUMN attempts TEXT NOT NULL DEFAULT '[]';
UPDATE calls SET attempts = tried.list FROM (
  SELECT call, json_agg(json_build_array(provider, model, outcome, status, ms * 1000000,
    CASE WHEN input IS NOT NULL
      THEN json_build_array(input, 0, 0, 0, coalesce(output, 0), 0, 0, 0) END, cost)
    ORDER BY number)::text AS list
  FROM attempts GROUP BY call) AS tried
WHERE tried.call = calls.position;
DROP TABLE attempts;
