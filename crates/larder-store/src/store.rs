use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use larder_tree::apply::Ownership;
use rusqlite::{Connection, Transaction};

use crate::db::{Db, to_nanos};
use crate::id::random_text;
use crate::layout::{DIRECTORIES, Layout};
use crate::lock::{FileLock, LockMode, wait_a_moment};
use crate::settle::Settling;
use crate::snapshot::{Lowers, Mounts};
use crate::{Ceiling, Error, ErrorKind, Mounter, Result, disk, reserve, settle};

/// Where the store takes the time from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// Returns a clock that asks `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the present time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How snapshots are made visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshotter {
    /// As layers stacked by overlayfs.
    Overlay {
        /// Whether overlayfs keeps its attributes in `user.overlay.*`, as it must when mounted
        /// without privileges.
        userxattr: bool,
    },
    /// As whole directories, each a copy of its parent: where overlayfs can't be mounted.
    Native,
}

/// What [`Store::open`] needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The clock.
    pub clock: Clock,
    /// How snapshots are made visible.
    pub snapshotter: Snapshotter,
    /// Who owns the files of unpacked layers.
    pub ownership: Ownership,
    /// Who mounts EROFS images; without it all new layers are directories, and others can't be seen.
    pub mounter: Option<Arc<dyn Mounter>>,
    /// What the state directory may take; no bound if absent.
    pub ceiling: Option<Ceiling>,
    /// How long after something was stored this process forces it to the disk, by a thread of its
    /// own; it does not if absent.
    pub settle_after: Option<Duration>,
}

/// The state directory, shared with any number of other processes.
///
/// Cheap to clone; clones share one database connection, which one thread uses at a time.
/// Methods block: on the disk, on short transactions of others, and, where they say so, on locks.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: Layout,
    db: Db,
    options: Options,
    boot: String,
    /// Whether this process removed records to make room.
    made_room: AtomicBool,
    mounts: Mounts,
    lowers: Lowers,
    settling: Settling,
}

/// A store that may have been closed.
#[derive(Debug, Clone)]
pub(crate) struct WeakStore(Weak<Inner>);

impl WeakStore {
    pub(crate) fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(Store)
    }
}

impl Store {
    /// Opens the store in the directory `root`, made if absent.
    ///
    /// What a crash left is no obstacle: nothing refers to it, and [`Store::gc`] removes it.
    ///
    /// # Errors
    /// `Denied` if the directory can't be written; `FullDisk`; `Invalid` if a newer larder wrote
    /// it, or `root` is relative; `Corrupt` if the database is damaged.
    pub fn open(root: &Path, options: Options) -> Result<Self> {
        if !root.is_absolute() {
            return Err(Error::invalid(
                "the path of a state directory must be absolute",
            ));
        }
        let layout = Layout::new(root.to_owned());
        let opened = match Db::open(&layout.database()) {
            Err(error) if error.kind() == ErrorKind::FullDisk && reserve::spend(&layout) => {
                Db::open(&layout.database())
            }
            opened => opened,
        };
        let db = match opened? {
            Some(db) => db,
            None => create(&layout)?,
        };
        let store = Self(Arc::new(Inner {
            layout,
            db,
            options,
            boot: settle::boot_id(),
            made_room: AtomicBool::new(false),
            mounts: Mounts::default(),
            lowers: Lowers::default(),
            settling: Settling::default(),
        }));
        store.recover_unsettled()?;
        Ok(store)
    }

    /// Returns the directory the store was opened in.
    pub fn root(&self) -> &Path {
        self.layout().root()
    }

    /// Returns the directory for the caller's own caches about build contexts, which `du` counts
    /// as overhead and which may be emptied at any time.
    pub fn contexts_dir(&self) -> PathBuf {
        self.layout().contexts()
    }

    /// Returns the directory for the caller's volumes, to be made by the caller. They are no cache:
    /// neither `du` nor the ceiling counts them.
    pub fn volumes_dir(&self) -> PathBuf {
        self.layout().volumes()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Returns how snapshots are made visible.
    pub fn snapshotter(&self) -> Snapshotter {
        self.0.options.snapshotter
    }

    /// Returns whom the files of unpacked layers are given to.
    pub fn ownership(&self) -> Ownership {
        self.0.options.ownership
    }

    pub(crate) fn mounter(&self) -> Option<&dyn Mounter> {
        self.0.options.mounter.as_deref()
    }

    /// The images that this process has mounted.
    pub(crate) fn mounts(&self) -> &Mounts {
        &self.0.mounts
    }

    /// What this process knows of trees.
    pub(crate) fn lowers(&self) -> &Lowers {
        &self.0.lowers
    }

    /// Returns the store for something that it keeps itself.
    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.0))
    }

    pub(crate) fn settle_after(&self) -> Option<Duration> {
        self.0.options.settle_after
    }

    pub(crate) fn settling(&self) -> &Settling {
        &self.0.settling
    }

    /// Returns what gives the store as long as it is open.
    pub(crate) fn while_open(&self) -> impl FnOnce() -> Option<Self> + Send + use<> {
        let store = Arc::downgrade(&self.0);
        move || store.upgrade().map(Self)
    }

    pub(crate) fn ceiling(&self) -> Option<Ceiling> {
        self.0.options.ceiling
    }

    /// Takes note that records were removed to make room.
    pub(crate) fn set_made_room(&self) {
        self.0.made_room.store(true, Ordering::Relaxed);
    }

    /// Returns whether keys of removed records may be left.
    pub(crate) fn has_made_room(&self) -> bool {
        self.0.made_room.load(Ordering::Relaxed)
    }

    /// The present time, as the database holds it.
    pub(crate) fn now(&self) -> i64 {
        to_nanos(self.0.options.clock.now())
    }

    /// The name of the machine's present run.
    pub(crate) fn boot(&self) -> &str {
        &self.0.boot
    }

    pub(crate) fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.0.db.read(body)
    }

    /// See [`Db::read_on`].
    pub(crate) fn read_on<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.0.db.read_on(body)
    }

    /// See [`Db::stop_reading_on`].
    pub(crate) fn stop_reading_on(&self) -> Result<()> {
        self.0.db.stop_reading_on()
    }

    /// See [`Db::cut_log`].
    pub(crate) fn cut_log(&self) -> Result<()> {
        self.0.db.cut_log(&self.layout().database_log())
    }

    pub(crate) fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.0.db.write(body)
    }

    /// See [`Db::write_soon`].
    pub(crate) fn write_soon(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<()> + Send + 'static,
        guard: impl Send + 'static,
    ) {
        self.0.db.write_soon(change, guard);
    }

    /// Makes known what waits for a transaction.
    pub(crate) fn flush(&self) -> Result<()> {
        self.0.db.flush()
    }

    pub(crate) fn write_durably<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.0.db.write_durably(body)
    }

    /// Excludes [`Store::lock_removal`]: from before a file gets its final name until its row is
    /// committed, and while something is looked up until it is protected.
    pub(crate) fn lock_publication(&self) -> Result<FileLock> {
        let path = self.layout().lock("publish");
        if let Some(lock) = FileLock::attempt(&path, LockMode::Shared)? {
            return Ok(lock);
        }
        let _turn = self.lock_turn()?;
        FileLock::wait(&path, LockMode::Shared)
    }

    /// Excludes publications, while rows and then their files are taken away, or while files
    /// without rows are looked for.
    pub(crate) fn lock_removal(&self) -> Result<FileLock> {
        let _turn = self.lock_turn()?;
        self.lock_flushing(&self.layout().lock("publish"))
    }

    /// Locks a file whose holder may wait for what this process has not made known yet, or which this process
    /// itself holds until it has.
    pub(crate) fn lock_flushing(&self, path: &Path) -> Result<FileLock> {
        loop {
            self.flush()?;
            if let Some(lock) = FileLock::attempt(path, LockMode::Exclusive)? {
                return Ok(lock);
            }
            wait_a_moment(&|| false, &|| {}, &mut true)?;
        }
    }

    /// Makes who removes one thing after the other wait for those who wait for it: the kernel lets
    /// the first that runs have the lock, which would be itself.
    fn lock_turn(&self) -> Result<FileLock> {
        FileLock::wait(&self.layout().lock("turn"), LockMode::Exclusive)
    }

    /// Leaves a sign, to be taken before rows go and removed after their files have gone: if this
    /// process dies in between, the next sweep finds the files. It is a lease that protects nothing.
    pub(crate) fn mark_removal(&self) -> Result<FileLock> {
        FileLock::wait(&self.layout().lease(&random_text()), LockMode::Exclusive)
    }
}

/// Makes the directories and the database, or migrates the database.
fn create(layout: &Layout) -> Result<Db> {
    let root = layout.root();
    let failed = |error: std::io::Error| {
        Error::io(
            format_args!("cannot write to the state directory `{}`", root.display()),
            error,
        )
    };
    if !root.is_dir() {
        let parent = root.parent().unwrap_or(root);
        std::fs::create_dir_all(parent).map_err(failed)?;
        match disk::make_private_dir(root) {
            Err(_) if root.is_dir() => {}
            made => made.map_err(|error| {
                Error::new(
                    error.kind(),
                    format_args!("cannot make the state directory `{}`", root.display()),
                )
            })?,
        }
    }
    let lock = FileLock::wait(&root.join("creating"), LockMode::Exclusive).map_err(|error| {
        let text = format_args!("cannot write to the state directory `{}`", root.display());
        Error::new(error.kind(), text)
    })?;
    for name in DIRECTORIES {
        let path = root.join(name);
        if !path.is_dir() {
            disk::make_private_dir(&path)?;
        }
    }
    Db::migrate(&layout.database())?;
    std::fs::write(layout.version(), format!("{}\n", crate::db::VERSION)).map_err(failed)?;
    reserve::fill(layout);
    lock.remove()?;
    Db::open(&layout.database())?
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the state database vanished"))
}
