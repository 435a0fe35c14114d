-- What a user or an organisation has spent in a minute is looked for by their name. Most calls are
-- nobody's, and cost nothing here.
CREATE INDEX calls_by_user ON calls ("user", at) WHERE "user" IS NOT NULL;
CREATE INDEX calls_by_org ON calls (org, at) WHERE org IS NOT NULL;
