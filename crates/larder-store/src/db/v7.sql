-- What leases protect stands in their files.
DROP TABLE held_snapshots;
DROP TABLE held_blobs;
DROP TABLE leases;

-- What all records of a kind take together, so that nobody has to add it up.
CREATE TABLE totals (
  kind   TEXT PRIMARY KEY,
  bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO totals SELECT 'snapshots', coalesce(sum(size_bytes), 0) FROM snapshots;
INSERT INTO totals SELECT 'blobs', coalesce(sum(allocated_bytes), 0) FROM blobs;
INSERT INTO totals SELECT 'cache_mounts', coalesce(sum(size_bytes), 0) FROM cache_mounts;

CREATE TRIGGER snapshots_added AFTER INSERT ON snapshots BEGIN
  UPDATE totals SET bytes = bytes + new.size_bytes WHERE kind = 'snapshots';
END;
CREATE TRIGGER snapshots_resized AFTER UPDATE OF size_bytes ON snapshots BEGIN
  UPDATE totals SET bytes = bytes + new.size_bytes - old.size_bytes WHERE kind = 'snapshots';
END;
CREATE TRIGGER snapshots_removed AFTER DELETE ON snapshots BEGIN
  UPDATE totals SET bytes = bytes - old.size_bytes WHERE kind = 'snapshots';
END;
CREATE TRIGGER blobs_added AFTER INSERT ON blobs BEGIN
  UPDATE totals SET bytes = bytes + new.allocated_bytes WHERE kind = 'blobs';
END;
CREATE TRIGGER blobs_resized AFTER UPDATE OF allocated_bytes ON blobs BEGIN
  UPDATE totals SET bytes = bytes + new.allocated_bytes - old.allocated_bytes WHERE kind = 'blobs';
END;
CREATE TRIGGER blobs_removed AFTER DELETE ON blobs BEGIN
  UPDATE totals SET bytes = bytes - old.allocated_bytes WHERE kind = 'blobs';
END;
CREATE TRIGGER cache_mounts_added AFTER INSERT ON cache_mounts BEGIN
  UPDATE totals SET bytes = bytes + new.size_bytes WHERE kind = 'cache_mounts';
END;
CREATE TRIGGER cache_mounts_resized AFTER UPDATE OF size_bytes ON cache_mounts BEGIN
  UPDATE totals SET bytes = bytes + new.size_bytes - old.size_bytes WHERE kind = 'cache_mounts';
END;
CREATE TRIGGER cache_mounts_removed AFTER DELETE ON cache_mounts BEGIN
  UPDATE totals SET bytes = bytes - old.size_bytes WHERE kind = 'cache_mounts';
END;

-- What a policy of the collector came to that could not free as much as it was to: it is left alone
-- until the store has grown, or a record has grown old enough.
CREATE TABLE collected (
  policy      TEXT PRIMARY KEY,
  used_bytes  INTEGER NOT NULL,
  due_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Those that wait longest are found without the others.
DROP INDEX snapshots_unsettled;
CREATE INDEX snapshots_unsettled ON snapshots (unsettled, created_at) WHERE unsettled IS NOT NULL;
DROP INDEX blobs_unsettled;
CREATE INDEX blobs_unsettled ON blobs (unsettled, created_at) WHERE unsettled IS NOT NULL;

CREATE INDEX cache_mounts_detached ON cache_mounts (id) WHERE detached <> 0;
