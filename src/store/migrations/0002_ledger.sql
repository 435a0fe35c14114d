-- One row for each call that ended. Times are milliseconds since 1970, money is nano-dollars, and
-- classes of tokens are disjoint as in `Usage`.
CREATE TABLE calls (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE, -- the call's x-request-id
  at INTEGER NOT NULL,
  surface TEXT NOT NULL,
  stream INTEGER NOT NULL,
  key TEXT,
  team TEXT,
  user TEXT,
  route TEXT,
  agent TEXT,
  task TEXT,
  provider TEXT,
  model TEXT,
  outcome TEXT NOT NULL,
  status INTEGER NOT NULL,
  input INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_write INTEGER NOT NULL,
  cache_write_long INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  audio_input INTEGER NOT NULL,
  audio_output INTEGER NOT NULL,
  usage_source TEXT NOT NULL,
  cost INTEGER, -- none is not free: nobody knows
  duration_ms INTEGER NOT NULL,
  first_token_ms INTEGER,
  generation INTEGER NOT NULL,
  cache TEXT NOT NULL,
  purpose TEXT NOT NULL,
  tags TEXT NOT NULL -- a JSON object of texts
) STRICT;

CREATE INDEX calls_by_time ON calls (at);
CREATE INDEX calls_by_key ON calls (key, at);
CREATE INDEX calls_by_team ON calls (team, at);

CREATE TABLE attempts (
  call INTEGER NOT NULL, -- the call's position
  number INTEGER NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  outcome TEXT NOT NULL,
  status INTEGER NOT NULL,
  ms INTEGER NOT NULL,
  PRIMARY KEY (call, number)
) STRICT, WITHOUT ROWID;

-- Calls that have begun and not ended. What is here when a process starts was cut off by the end of
-- the one before.
CREATE TABLE opens (
  id TEXT PRIMARY KEY,
  row TEXT NOT NULL -- as it is to stand in `calls`, as JSON
) STRICT, WITHOUT ROWID;

-- How far the journal has been taken in. One row.
CREATE TABLE journal (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  segment INTEGER NOT NULL,
  offset INTEGER NOT NULL
) STRICT;

-- What budgets have spent in each window.
CREATE TABLE used (
  account TEXT NOT NULL,
  unit TEXT NOT NULL,
  starts_at INTEGER NOT NULL, -- 0 for a window without an end
  amount INTEGER NOT NULL,
  PRIMARY KEY (account, unit, starts_at)
) STRICT, WITHOUT ROWID;

-- The sums of `calls` by hour, so that no report reads them all. Names that are missing are ''.
CREATE TABLE usage (
  hour INTEGER NOT NULL, -- since 1970
  key TEXT NOT NULL,
  team TEXT NOT NULL,
  user TEXT NOT NULL,
  route TEXT NOT NULL,
  agent TEXT NOT NULL,
  task TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  surface TEXT NOT NULL,
  outcome TEXT NOT NULL,
  purpose TEXT NOT NULL,
  tags TEXT NOT NULL,
  calls INTEGER NOT NULL,
  estimated INTEGER NOT NULL,
  unpriced INTEGER NOT NULL,
  input INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_write INTEGER NOT NULL,
  cache_write_long INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  audio_input INTEGER NOT NULL,
  audio_output INTEGER NOT NULL,
  cost INTEGER NOT NULL,
  PRIMARY KEY (hour, key, team, user, route, agent, task, provider, model, surface, outcome,
    purpose, tags)
) STRICT, WITHOUT ROWID;
