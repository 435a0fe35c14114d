-- Runs of agents. What belongs to one is found by its position. Times are milliseconds since 1970,
-- money is nano-dollars.
CREATE TABLE runs (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  root TEXT NOT NULL, -- an id, its own if nobody began it but a client
  parent TEXT,
  agent TEXT NOT NULL,
  version TEXT NOT NULL,
  definition TEXT NOT NULL, -- the hash of one of `definitions`
  owner TEXT NOT NULL,
  key TEXT NOT NULL,
  "user" TEXT,
  session TEXT,
  idempotency TEXT,
  request TEXT, -- the digest of what was asked with it
  trigger TEXT NOT NULL,
  labels TEXT NOT NULL, -- a JSON object of texts
  state TEXT NOT NULL,
  reason TEXT,
  steps INTEGER NOT NULL,
  tool_calls INTEGER NOT NULL,
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  cost INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  finished_at INTEGER, -- since then it is over
  last_seq INTEGER NOT NULL, -- the number of the last event
  wake_at INTEGER,
  epoch INTEGER NOT NULL, -- how often it was leased
  lease_until INTEGER NOT NULL, -- 0: nobody has it
  takeovers INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX runs_once ON runs (owner, idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX runs_by_owner ON runs (owner, position);
CREATE INDEX runs_by_agent ON runs (agent, position);
CREATE INDEX runs_by_root ON runs (root);
CREATE INDEX runs_queued ON runs (position) WHERE state = 'queued';
CREATE INDEX runs_running ON runs (lease_until) WHERE state = 'running';
CREATE INDEX runs_waking ON runs (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX runs_over ON runs (finished_at) WHERE finished_at IS NOT NULL;

-- The journals.
CREATE TABLE events (
  run INTEGER NOT NULL,
  seq INTEGER NOT NULL, -- from 1 on, without a gap
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL, -- JSON
  call INTEGER, -- of an answer of a model: to which call
  PRIMARY KEY (run, seq)
) STRICT;

-- No call of a model is answered twice.
CREATE UNIQUE INDEX events_answers ON events (run, call) WHERE call IS NOT NULL;

-- What runs are told from outside.
CREATE TABLE signals (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL,
  kind TEXT NOT NULL,
  data TEXT NOT NULL, -- JSON
  once TEXT,
  at INTEGER NOT NULL,
  taken INTEGER NOT NULL -- 1: it is in the journal
) STRICT;

CREATE INDEX signals_by_run ON signals (run, number);
CREATE UNIQUE INDEX signals_once ON signals (run, kind, once) WHERE once IS NOT NULL;
CREATE INDEX signals_open ON signals (run) WHERE taken = 0;

CREATE TABLE approvals (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL,
  owner TEXT NOT NULL,
  agent TEXT NOT NULL,
  call TEXT NOT NULL,
  tool TEXT NOT NULL,
  args TEXT NOT NULL,
  hash TEXT NOT NULL,
  roles TEXT NOT NULL, -- a JSON list of texts
  reason TEXT NOT NULL,
  state TEXT NOT NULL, -- one that is `pending` beyond its time is expired
  decided_by TEXT,
  decided_at INTEGER,
  comment TEXT,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX approvals_by_run ON approvals (run);
CREATE INDEX approvals_by_owner ON approvals (owner, position);
CREATE INDEX approvals_pending ON approvals (position) WHERE state = 'pending';

-- What agents were when their runs began, by its SHA-256.
CREATE TABLE definitions (
  hash TEXT PRIMARY KEY,
  body TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
  owner TEXT NOT NULL,
  id TEXT NOT NULL,
  agent TEXT NOT NULL,
  version TEXT NOT NULL,
  head TEXT NOT NULL, -- the id of a run
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (owner, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_head ON sessions (head);

-- Long results, by the SHA-256 of their bytes, and how many runs have each.
CREATE TABLE blobs (
  hash TEXT PRIMARY KEY,
  bytes BLOB NOT NULL,
  runs INTEGER NOT NULL
) STRICT;

CREATE INDEX blobs_unused ON blobs (hash) WHERE runs = 0;

CREATE TABLE run_blobs (
  run INTEGER NOT NULL,
  hash TEXT NOT NULL,
  PRIMARY KEY (run, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX run_blobs_by_hash ON run_blobs (hash);

-- Work that came to nothing, for a person to see.
CREATE TABLE letters (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL,
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  payload TEXT NOT NULL, -- JSON
  error TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  at INTEGER NOT NULL,
  state TEXT NOT NULL
) STRICT;

CREATE INDEX letters_by_run ON letters (run);
CREATE INDEX letters_by_owner ON letters (owner, position);

-- Agents of which no queued run begins.
CREATE TABLE paused_agents (
  agent TEXT PRIMARY KEY,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
