-- Times are nanoseconds since 1970, digests `algorithm:hex`. `unsettled` names the boot of the
-- machine in which the row's files were written, as long as they may not have reached the disk.

CREATE TABLE leases (
  id          TEXT PRIMARY KEY,
  started_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
  digest           TEXT PRIMARY KEY,
  size_bytes       INTEGER NOT NULL,
  allocated_bytes  INTEGER NOT NULL,
  created_at       INTEGER NOT NULL,
  last_used_at     INTEGER,
  usage_count      INTEGER NOT NULL DEFAULT 0,
  unsettled        TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_unsettled ON blobs (unsettled) WHERE unsettled IS NOT NULL;

-- form: `directory` has the changes to its parent, in overlayfs's terms; `tree` has a whole tree;
-- `merge` has no files and stacks its parents; `flat` has its only parent's layers in one.
CREATE TABLE snapshots (
  id            TEXT PRIMARY KEY,
  form          TEXT NOT NULL CHECK (form IN ('directory', 'tree', 'merge', 'flat')),
  chain_id      TEXT UNIQUE,
  diff_id       TEXT,
  tar_bytes     INTEGER,
  record_type   TEXT NOT NULL,
  description   TEXT NOT NULL,
  size_bytes    INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  last_used_at  INTEGER,
  usage_count   INTEGER NOT NULL DEFAULT 0,
  unsettled     TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_unsettled ON snapshots (unsettled) WHERE unsettled IS NOT NULL;

CREATE TABLE snapshot_parents (
  child     TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  position  INTEGER NOT NULL,
  parent    TEXT NOT NULL REFERENCES snapshots (id),
  PRIMARY KEY (child, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_parents_parent ON snapshot_parents (parent);

-- The compressed forms that a layer is known to have. Their bytes need not be stored.
CREATE TABLE layer_blobs (
  snapshot    TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  digest      TEXT NOT NULL,
  media_type  TEXT NOT NULL,
  size_bytes  INTEGER NOT NULL,
  PRIMARY KEY (snapshot, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_digest ON layer_blobs (digest);

CREATE TABLE held_snapshots (
  lease     TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
  snapshot  TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  PRIMARY KEY (lease, snapshot)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_snapshots_snapshot ON held_snapshots (snapshot);

CREATE TABLE held_blobs (
  lease   TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
  digest  TEXT NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
  PRIMARY KEY (lease, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_blobs_digest ON held_blobs (digest);

-- AUTOINCREMENT: the number of a key that is gone is never given to another.
CREATE TABLE keys (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  op      TEXT NOT NULL,
  output  INTEGER NOT NULL,
  root    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX keys_root ON keys (op, output) WHERE root = 1;

-- `op` and `output` are the child's, so that a look-up reads one range of this table.
CREATE TABLE links (
  parent    INTEGER NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
  input     INTEGER NOT NULL,
  op        TEXT NOT NULL,
  output    INTEGER NOT NULL,
  selector  TEXT NOT NULL,
  child     INTEGER NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
  PRIMARY KEY (parent, input, op, output, selector, child)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_child ON links (child, input);

CREATE TABLE results (
  key         INTEGER PRIMARY KEY REFERENCES keys (id) ON DELETE CASCADE,
  snapshot    TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX results_snapshot ON results (snapshot);

CREATE TABLE tombstones (
  key        INTEGER PRIMARY KEY,
  pruned_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE steps (
  number      INTEGER PRIMARY KEY AUTOINCREMENT,
  scope       TEXT NOT NULL,
  step        TEXT NOT NULL,
  key         INTEGER NOT NULL,
  parts       BLOB NOT NULL,
  created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX steps_scope ON steps (scope, step);

CREATE TABLE builds (
  number      INTEGER PRIMARY KEY AUTOINCREMENT,
  scope       TEXT NOT NULL,
  report      BLOB NOT NULL,
  created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_scope ON builds (scope);

-- Found in the order of their making. A detached one was emptied while in use: nobody finds it
-- any more.
CREATE TABLE cache_mounts (
  id            TEXT PRIMARY KEY,
  name          TEXT NOT NULL,
  seed          TEXT NOT NULL,
  description   TEXT NOT NULL,
  size_bytes    INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  last_used_at  INTEGER,
  usage_count   INTEGER NOT NULL DEFAULT 0,
  detached      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX cache_mounts_name ON cache_mounts (name, seed);

CREATE TABLE images (
  manifest    TEXT PRIMARY KEY REFERENCES blobs (digest),
  media_type  TEXT NOT NULL,
  config      TEXT NOT NULL,
  platform    TEXT NOT NULL,
  created_at  INTEGER,
  stored_at   INTEGER NOT NULL,
  snapshot    TEXT REFERENCES snapshots (id)
) STRICT, WITHOUT ROWID;
CREATE INDEX images_snapshot ON images (snapshot);

CREATE TABLE image_blobs (
  image   TEXT NOT NULL REFERENCES images (manifest) ON DELETE CASCADE,
  digest  TEXT NOT NULL REFERENCES blobs (digest),
  PRIMARY KEY (image, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_blobs_digest ON image_blobs (digest);

CREATE TABLE tags (
  name      TEXT PRIMARY KEY,
  manifest  TEXT NOT NULL REFERENCES images (manifest) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_manifest ON tags (manifest);
