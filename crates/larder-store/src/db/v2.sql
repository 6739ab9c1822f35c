-- Where a blob that is not stored can be fetched, or mounted from: a repository, as
-- `HOST/NAME`.
CREATE TABLE origins (
  digest      TEXT NOT NULL,
  repository  TEXT NOT NULL,
  noted_at    INTEGER NOT NULL,
  PRIMARY KEY (digest, repository)
) STRICT, WITHOUT ROWID;
CREATE INDEX origins_noted_at ON origins (noted_at);
