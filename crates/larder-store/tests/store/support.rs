//! A store of its own for each test, with a clock that stands still.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use larder_oci::{Digest, Layer, Mount, MountKind};
use larder_store::{
    Ceiling, Clock, Lease, Mounter, NewSnapshot, Options, PruneRequest, RecordType, SnapshotId,
    Snapshotter, Store,
};
use larder_tree::apply::Ownership;
use larder_tree::diff::LayerOptions;

use crate::mounter::Images;

pub(crate) const OVERLAY: Snapshotter = Snapshotter::Overlay { userxattr: false };
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct TestStore {
    pub(crate) store: Store,
    dir: tempfile::TempDir,
    seconds: Arc<AtomicI64>,
    ceiling: Option<Ceiling>,
    mounter: Option<Arc<dyn Mounter>>,
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl TestStore {
    pub(crate) fn new() -> Self {
        Self::with(OVERLAY)
    }

    pub(crate) fn with(snapshotter: Snapshotter) -> Self {
        Self::bounded(snapshotter, None)
    }

    pub(crate) fn bounded(snapshotter: Snapshotter, ceiling: Option<Ceiling>) -> Self {
        Self::opened(snapshotter, ceiling, None)
    }

    /// A store whose layers are images; `None`, with a word, where they can't be mounted.
    pub(crate) fn of_images(ceiling: Option<Ceiling>) -> Option<Self> {
        let mounter = Images::new()?;
        Some(Self::opened(OVERLAY, ceiling, Some(Arc::new(mounter))))
    }

    fn opened(
        snapshotter: Snapshotter,
        ceiling: Option<Ceiling>,
        mounter: Option<Arc<dyn Mounter>>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicI64::new(1_700_000_000));
        let options = Options {
            ceiling,
            mounter: mounter.clone(),
            ..options(snapshotter, &seconds)
        };
        Self {
            store: Store::open(&dir.path().join("root"), options).unwrap(),
            dir,
            seconds,
            ceiling,
            mounter,
        }
    }

    /// Opens the same store once more, as another process would.
    pub(crate) fn again(&self) -> Store {
        self.again_by(self.mounter.clone())
    }

    /// Opens the same store once more, where others can be mounted.
    pub(crate) fn again_by(&self, mounter: Option<Arc<dyn Mounter>>) -> Store {
        let options = Options {
            ceiling: self.ceiling,
            mounter,
            ..options(OVERLAY, &self.seconds)
        };
        Store::open(self.root(), options).unwrap()
    }

    /// Closes the store, and opens it as the next process would that is alone with it.
    pub(crate) fn reopened(self) -> Self {
        let root = self.store.root().to_owned();
        drop(self.store);
        let options = Options {
            ceiling: self.ceiling,
            mounter: self.mounter.clone(),
            ..options(OVERLAY, &self.seconds)
        };
        Self {
            store: Store::open(&root, options).unwrap(),
            dir: self.dir,
            seconds: self.seconds,
            ceiling: self.ceiling,
            mounter: self.mounter,
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.seconds
            .fetch_add(by.as_secs() as i64, Ordering::SeqCst);
    }

    pub(crate) fn prune_all(&self) -> Vec<String> {
        self.prune_with(&PruneRequest {
            all: true,
            ..PruneRequest::default()
        })
    }

    /// Prunes, and returns the descriptions of what went.
    pub(crate) fn prune_with(&self, request: &PruneRequest) -> Vec<String> {
        let mut removed = Vec::new();
        self.prune(request, &mut |record| {
            removed.push(record.description.clone());
        })
        .unwrap();
        removed
    }

    pub(crate) fn assert_sound(&self) {
        assert_eq!(self.check().unwrap(), []);
    }
}

fn options(snapshotter: Snapshotter, seconds: &Arc<AtomicI64>) -> Options {
    let seconds = seconds.clone();
    let now = move || {
        let since = SignedDuration::from_secs(seconds.load(Ordering::SeqCst));
        Timestamp::UNIX_EPOCH + since
    };
    Options {
        clock: Clock::new(now),
        snapshotter,
        ownership: Ownership::Preserve,
        mounter: None,
        ceiling: None,
        settle_after: None,
    }
}

pub(crate) fn new_snapshot<'a>(
    parent: Option<&'a SnapshotId>,
    description: &'a str,
) -> NewSnapshot<'a> {
    NewSnapshot {
        parent,
        description,
        record_type: RecordType::Regular,
    }
}

/// Where a mount takes writes.
pub(crate) fn upper(mount: &Mount) -> PathBuf {
    match &mount.kind {
        MountKind::Bind { source } => path(source),
        MountKind::Overlay { upper, .. } => upper.as_ref().unwrap().upper.clone(),
    }
}

/// The directories of a mount, topmost first.
pub(crate) fn lowers(mount: &Mount) -> Vec<PathBuf> {
    match &mount.kind {
        MountKind::Bind { source } => vec![path(source)],
        MountKind::Overlay { lowers, .. } => lowers.iter().map(path).collect(),
    }
}

/// Where a layer's files can be seen, for as long as its mount lives.
pub(crate) fn path(layer: &Layer) -> PathBuf {
    match layer {
        Layer::Directory(path) => path.clone(),
        Layer::Image(root) => format!("/proc/self/fd/{}", root.as_raw_fd()).into(),
    }
}

/// Commits a snapshot with one file, named and filled as its description.
pub(crate) fn layer(lease: &Lease, parent: Option<&SnapshotId>, name: &str) -> SnapshotId {
    let active = lease.prepare(&new_snapshot(parent, name)).unwrap();
    std::fs::write(upper(&active.mount().unwrap()).join(name), name).unwrap();
    active.commit().unwrap()
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::sha256(text)
}

/// Allocated bytes below `path`, hard links once: another way to count than the store's.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    fn walk(path: &Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
        let Ok(stat) = std::fs::symlink_metadata(path) else {
            return 0;
        };
        if !seen.insert(stat.ino()) {
            return 0;
        }
        let mut total = stat.blocks() * 512;
        if stat.is_dir() {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                total += walk(&entry.path(), seen);
            }
        }
        total
    }
    walk(path, &mut std::collections::HashSet::new())
}

/// Entries of the directories that hold what is being written or thrown away.
pub(crate) fn leftovers(store: &Store) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["tmp", "trash", "leases", "partial"] {
        for entry in std::fs::read_dir(store.root().join(name)).unwrap() {
            found.push(format!("{name}/{}", entry.unwrap().file_name().display()));
        }
    }
    found
}

/// Lets all that is unsettled look as if the machine went down since.
pub(crate) fn restart(store: &Store) {
    let db = rusqlite::Connection::open(store.root().join("larder.db")).unwrap();
    let made_older = ["snapshots", "blobs"].map(|table| {
        let sql =
            format!("UPDATE {table} SET unsettled = 'boot before' WHERE unsettled IS NOT NULL");
        db.execute(&sql, []).unwrap()
    });
    assert!(made_older.iter().sum::<usize>() > 0);
}

/// Keeps the diff ID of a snapshot, as an export does.
pub(crate) fn keep_diff_id(store: &Store, id: &SnapshotId) {
    let options = LayerOptions::default();
    let (diff_id, length) = store.write_layer(id, std::io::sink(), &options).unwrap();
    store.set_diff_id(id, &diff_id, length).unwrap();
}
