-- Changes that were noted together with what they tell of, and are to be sealed into `audit`: so that
-- who notes them need not wait for anybody.
CREATE TABLE audit_waiting (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  who TEXT NOT NULL,
  what TEXT NOT NULL,
  subject TEXT NOT NULL,
  before TEXT,
  after TEXT
) STRICT;

-- What is counted again and again.
CREATE INDEX runs_not_over ON runs (agent, state) WHERE finished_at IS NULL;
CREATE INDEX letters_open ON letters (kind) WHERE state = 'open';
