-- Calls of tools whose limits replicas keep together, counted by parts of the span of each limit.
CREATE TABLE turns (
    name TEXT NOT NULL,
    seconds INTEGER NOT NULL,
    part INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    gone_at INTEGER NOT NULL,
    PRIMARY KEY (name, seconds, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX turns_by_end ON turns (gone_at);
