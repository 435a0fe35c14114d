-- What results of its tools a run has taken in, for a budget of bytes that outlives its process.
ALTER TABLE runs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
