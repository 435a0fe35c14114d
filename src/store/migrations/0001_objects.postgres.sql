-- As in 0001_objects.sql.
CREATE TABLE objects (
  position BIGSERIAL PRIMARY KEY,
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  value BYTEA NOT NULL,
  UNIQUE (owner, kind, id)
);

CREATE INDEX objects_by_position ON objects (owner, kind, position);
CREATE INDEX objects_by_expiry ON objects (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE object_counts (
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (owner, kind)
);

CREATE FUNCTION objects_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF tg_op = 'INSERT' THEN
    INSERT INTO object_counts (owner, kind, count) VALUES (new.owner, new.kind, 1)
      ON CONFLICT (owner, kind) DO UPDATE SET count = object_counts.count + 1;
  ELSE
    UPDATE object_counts SET count = count - 1 WHERE owner = old.owner AND kind = old.kind;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER objects_count AFTER INSERT OR DELETE ON objects
  FOR EACH ROW EXECUTE FUNCTION objects_count();
