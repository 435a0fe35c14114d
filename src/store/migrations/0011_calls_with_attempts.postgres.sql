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
CREATE VIEW attempts AS
  SELECT position AS call, attempt.place - 1 AS number,
    attempt.value ->> 0 AS provider, attempt.value ->> 1 AS model,
    attempt.value ->> 2 AS outcome, (attempt.value ->> 3)::bigint AS status,
    (attempt.value ->> 4)::bigint / 1000000 AS ms,
    (attempt.value -> 5 ->> 0)::bigint + (attempt.value -> 5 ->> 1)::bigint
      + (attempt.value -> 5 ->> 2)::bigint + (attempt.value -> 5 ->> 3)::bigint AS input,
    (attempt.value -> 5 ->> 4)::bigint AS output, (attempt.value ->> 6)::bigint AS cost
  FROM calls CROSS JOIN LATERAL json_array_elements(calls.attempts::json)
    WITH ORDINALITY AS attempt (value, place);
