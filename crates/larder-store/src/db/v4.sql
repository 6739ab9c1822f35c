-- The further images of an index: an image of another platform than that of its row in `images`.
CREATE TABLE image_platforms (
  image     TEXT NOT NULL REFERENCES images (manifest) ON DELETE CASCADE,
  config    TEXT NOT NULL,
  platform  TEXT NOT NULL,
  snapshot  TEXT REFERENCES snapshots (id),
  PRIMARY KEY (image, config)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_platforms_snapshot ON image_platforms (snapshot);
