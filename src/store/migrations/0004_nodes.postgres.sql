-- As in 0004_nodes.sql.
ALTER TABLE opens ADD COLUMN node TEXT NOT NULL DEFAULT '';
CREATE INDEX opens_by_node ON opens (node);

DROP TABLE journal;
CREATE TABLE journal (
  node TEXT PRIMARY KEY,
  segment BIGINT NOT NULL,
  "offset" BIGINT NOT NULL
);

ALTER TABLE spent ADD COLUMN node TEXT NOT NULL DEFAULT '';
ALTER TABLE spent DROP CONSTRAINT spent_pkey;
ALTER TABLE spent ADD PRIMARY KEY (account, unit, minute, node);
