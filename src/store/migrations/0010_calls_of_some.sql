-- Calls that are nobody's are looked for by nobody's name.
DROP INDEX calls_by_key;
DROP INDEX calls_by_team;
CREATE INDEX calls_by_key ON calls (key, at) WHERE key IS NOT NULL;
CREATE INDEX calls_by_team ON calls (team, at) WHERE team IS NOT NULL;
