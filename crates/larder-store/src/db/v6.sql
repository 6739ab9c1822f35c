-- How a snapshot's own files lie on the disk: `directory`, or `erofs` for an image, which is one file.
ALTER TABLE snapshots ADD COLUMN
  packing TEXT NOT NULL DEFAULT 'directory' CHECK (packing IN ('directory', 'erofs'));
