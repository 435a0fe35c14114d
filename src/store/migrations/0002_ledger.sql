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
  "user" TEXT,
  org TEXT,
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
  counted INTEGER NOT NULL, -- tokens as budgets count them
  settled_at INTEGER NOT NULL, -- when they counted it
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
  input INTEGER, -- as is the next: where another attempt took its place
  output INTEGER,
  cost INTEGER,
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
  "offset" INTEGER NOT NULL
) STRICT;

-- What keys, users, teams and orgs have spent, by the minute in which budgets counted it, from
-- which any window can be added up again. What is old is put together in longer steps.
CREATE TABLE spent (
  account TEXT NOT NULL, -- key:ci, team:search
  unit TEXT NOT NULL, -- tokens or usd
  minute INTEGER NOT NULL, -- since 1970
  amount INTEGER NOT NULL, -- tokens or nano-dollars
  PRIMARY KEY (account, unit, minute)
) STRICT, WITHOUT ROWID;

CREATE INDEX spent_fine ON spent (minute) WHERE minute % 15 != 0;
CREATE INDEX spent_by_time ON spent (minute);

-- The sums of `calls` by hour, so that no report reads them all. Names that are missing are ''.
CREATE TABLE usage (
  hour INTEGER NOT NULL, -- since 1970
  key TEXT NOT NULL,
  team TEXT NOT NULL,
  "user" TEXT NOT NULL,
  org TEXT NOT NULL,
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
  PRIMARY KEY (hour, key, team, "user", org, route, agent, task, provider, model, surface, outcome,
    purpose, tags)
) STRICT, WITHOUT ROWID;
