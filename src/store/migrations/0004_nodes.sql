-- Several processes may share one database: each has a journal of its own, settles its own calls
-- that were cut off, and is known by a name that lies with its journal. What was noted before they
-- had names has ''.
ALTER TABLE opens ADD COLUMN node TEXT NOT NULL DEFAULT '';
CREATE INDEX opens_by_node ON opens (node);

CREATE TABLE nodes_journal (
  node TEXT PRIMARY KEY,
  segment INTEGER NOT NULL,
  "offset" INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO nodes_journal SELECT '', segment, "offset" FROM journal;
DROP TABLE journal;
ALTER TABLE nodes_journal RENAME TO journal;

CREATE TABLE nodes_spent (
  account TEXT NOT NULL,
  unit TEXT NOT NULL,
  minute INTEGER NOT NULL,
  node TEXT NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (account, unit, minute, node)
) STRICT, WITHOUT ROWID;
INSERT INTO nodes_spent SELECT account, unit, minute, '', amount FROM spent;
DROP TABLE spent;
ALTER TABLE nodes_spent RENAME TO spent;
CREATE INDEX spent_fine ON spent (minute) WHERE minute % 15 != 0;
CREATE INDEX spent_by_time ON spent (minute);
