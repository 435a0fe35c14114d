-- Keys made at run time. No secret stands here, only what it is recognised by.
CREATE TABLE keys (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  team TEXT,
  "user" TEXT,
  org TEXT,
  settings TEXT NOT NULL, -- scopes, limits and budgets, as JSON
  created_at INTEGER NOT NULL, -- milliseconds since 1970, as are the others
  expires_at INTEGER,
  revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- While a key changes from one secret to the next, it has several.
CREATE TABLE secrets (
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  valid_until INTEGER,
  PRIMARY KEY (key, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  who TEXT NOT NULL,
  what TEXT NOT NULL,
  before TEXT,
  after TEXT
) STRICT;
