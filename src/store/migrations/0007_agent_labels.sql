-- Labels of agents that were moved at run time. `file` is what the config said at that time, NULL
-- where it had no such label: as soon as it says something else, that holds.
CREATE TABLE agent_labels (
  agent TEXT NOT NULL,
  label TEXT NOT NULL,
  version TEXT NOT NULL,
  file TEXT,
  moved_by TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (agent, label)
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_by_definition ON runs (definition);
