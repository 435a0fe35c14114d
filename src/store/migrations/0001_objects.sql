-- `position` is never given twice, so that a page can go on after an object that is gone.
CREATE TABLE objects (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  created_at INTEGER NOT NULL, -- milliseconds since 1970, as is the next
  expires_at INTEGER,
  value BLOB NOT NULL,
  UNIQUE (owner, kind, id)
) STRICT;

CREATE INDEX objects_by_position ON objects (owner, kind, position);
CREATE INDEX objects_by_expiry ON objects (expires_at) WHERE expires_at IS NOT NULL;

-- Kept by triggers, so that holding a bound needs no counting.
CREATE TABLE object_counts (
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (owner, kind)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER objects_count_up AFTER INSERT ON objects BEGIN
  INSERT INTO object_counts (owner, kind, count) VALUES (new.owner, new.kind, 1)
    ON CONFLICT (owner, kind) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER objects_count_down AFTER DELETE ON objects BEGIN
  UPDATE object_counts SET count = count - 1 WHERE owner = old.owner AND kind = old.kind;
END;
