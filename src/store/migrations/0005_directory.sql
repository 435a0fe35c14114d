-- Whatever was made at run time, each under the kind that it is of. Nothing has ever been written to
-- the tables that this replaces.
DROP TABLE keys;
DROP TABLE secrets;
DROP TABLE audit;

-- `version` is the position in `audit` of the change that made the row so: what is new to somebody
-- is what lies behind the last one that they have seen. Rows that came to an end stay, to be seen.
CREATE TABLE entries (
  kind TEXT NOT NULL, -- key, user, team or org
  id TEXT NOT NULL,
  settings TEXT NOT NULL, -- as in the config file, as JSON
  created_at INTEGER NOT NULL, -- milliseconds since 1970, as are the others
  changed_at INTEGER NOT NULL,
  ended_at INTEGER,
  version INTEGER NOT NULL,
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX entries_by_version ON entries (version);

-- No secret stands here, only what it is recognised by. While a key changes from one to the next, it
-- has several.
CREATE TABLE secrets (
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  valid_until INTEGER,
  PRIMARY KEY (key, digest)
) STRICT, WITHOUT ROWID;

-- What was added to budgets.
CREATE TABLE topups (
  version INTEGER PRIMARY KEY,
  scope TEXT NOT NULL,
  name TEXT NOT NULL,
  unit TEXT NOT NULL,
  label TEXT NOT NULL, -- the window as it is written
  amount INTEGER NOT NULL, -- tokens or nano-dollars
  made_at INTEGER NOT NULL
) STRICT;

-- What a client has asked to have made once.
CREATE TABLE creates (
  who TEXT NOT NULL,
  token TEXT NOT NULL,
  request TEXT NOT NULL, -- its SHA-256
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (who, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX creates_by_time ON creates (at);

-- Each row's hash is one over the row and the hash before it, so that none can be changed or taken
-- out unseen.
CREATE TABLE audit (
  position INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  who TEXT NOT NULL,
  what TEXT NOT NULL,
  subject TEXT NOT NULL,
  before TEXT,
  after TEXT,
  hash TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_subject ON audit (subject, position);
CREATE INDEX audit_by_time ON audit (at);
