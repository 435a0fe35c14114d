-- What others are told of runs, each once in this table and until they have heard it. Times are
-- milliseconds since 1970.
CREATE TABLE deliveries (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE, -- the same for the same news to the same hook
  run INTEGER NOT NULL,
  hook TEXT NOT NULL, -- a name of the config, or a URL
  body TEXT NOT NULL, -- JSON
  attempts INTEGER NOT NULL,
  due INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  state TEXT NOT NULL -- pending, delivered or failed
) STRICT;

CREATE INDEX deliveries_by_run ON deliveries (run);
CREATE INDEX deliveries_due ON deliveries (due) WHERE state = 'pending';
