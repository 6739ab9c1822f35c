-- The snapshots whose images are extra devices of a snapshot's image: it uses blocks of them.
CREATE TABLE snapshot_devices (
  snapshot  TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
  device    TEXT NOT NULL REFERENCES snapshots (id),
  PRIMARY KEY (snapshot, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshot_devices_device ON snapshot_devices (device);
