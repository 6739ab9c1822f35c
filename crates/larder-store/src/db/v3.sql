-- What was fetched from somewhere: `source` is a digest over what was asked for.
CREATE TABLE fetched (
  source    TEXT NOT NULL,
  snapshot  TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  about     BLOB NOT NULL,
  noted_at  INTEGER NOT NULL,
  PRIMARY KEY (source, snapshot)
) STRICT, WITHOUT ROWID;
CREATE INDEX fetched_snapshot ON fetched (snapshot);
