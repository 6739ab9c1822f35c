use std::path::{Path, PathBuf};

use larder_oci::Digest;

use crate::SnapshotId;

/// Where things lie below the state directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The directories of a fresh store. All are for their owner alone: layers hold setuid programs.
pub(crate) const DIRECTORIES: [&str; 10] = [
    "blobs",
    "blobs/sha256",
    "cache-mounts",
    "contexts",
    "leases",
    "locks",
    "partial",
    "snapshots",
    "tmp",
    "trash",
];

/// The directory of volumes, which are no cache: made when first needed, and not counted.
pub(crate) const VOLUMES: &str = "volumes";

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("larder.db")
    }

    /// Returns the database's log.
    pub(crate) fn database_log(&self) -> PathBuf {
        self.root.join("larder.db-wal")
    }

    pub(crate) fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    /// Returns the file that takes room on the disk until that is needed.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Returns a blob's file. `digest` is a `sha256` one; its hex part is checked by its type.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Returns the file of a download that may go on later.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.hex())
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots().join(id.as_str())
    }

    pub(crate) fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    pub(crate) fn cache_mount(&self, id: &SnapshotId) -> PathBuf {
        self.cache_mounts().join(id.as_str())
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn lease(&self, id: &str) -> PathBuf {
        self.leases().join(id)
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(crate) fn lock(&self, name: &str) -> PathBuf {
        self.locks().join(name)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join(VOLUMES)
    }

    pub(crate) fn contexts(&self) -> PathBuf {
        self.root.join("contexts")
    }
}
