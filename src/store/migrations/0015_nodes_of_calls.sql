-- Who counted a call. What was spent in a minute that has begun is summed up from its calls, and where
-- replicas count together each looks for its own. Calls from before are nobody's.
ALTER TABLE calls ADD COLUMN node TEXT NOT NULL DEFAULT '';
