use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use larder_oci::{Digest, Mount, MountKind};
use larder_tree::beneath::Root;
use larder_tree::quota::Quota;
use rusqlite::params;
use rustix::fs::{Gid, Mode, Uid};

use crate::ceiling::Reservation;
use crate::lock::{Existing, FileLock, LockMode, wait_a_moment};
use crate::{Error, Lease, Result, SnapshotId, Store, disk, trash};

/// What an empty cache mount takes, its lock included.
const EMPTY_BYTES: u64 = 16 << 10;

/// How many may use one cache mount at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Any number.
    Shared,
    /// One; another gets a cache mount of its own.
    Private,
    /// One; another waits.
    Locked,
}

/// Fills the directory of a new cache mount, within what the store has room for.
pub type FillCacheMount<'a> = dyn Fn(&Root, &dyn Quota) -> larder_tree::Result<()> + 'a;

/// A cache mount asked for.
#[derive(Clone, Copy)]
pub struct CacheMountRequest<'a> {
    /// The effective id, namespace included: `//root/.cache/pip`.
    pub name: &'a str,
    /// What identifies the content that a new one starts with; empty for an empty one. Cache
    /// mounts with different seeds are different.
    pub seed: &'a str,
    /// How many may use it.
    pub sharing: Sharing,
    /// What uses it, for `du`.
    pub description: &'a str,
    /// User and group of a new one's directory; the process's if absent.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of a new one's directory.
    pub mode: u32,
    /// Fills a new one with what the seed stands for.
    pub fill: Option<&'a FillCacheMount<'a>>,
}

impl fmt::Debug for CacheMountRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMountRequest")
            .field("name", &self.name)
            .field("seed", &self.seed)
            .field("sharing", &self.sharing)
            .finish_non_exhaustive()
    }
}

/// The right to use a cache mount. Its content stays when this ends, however the step ended.
#[derive(Debug, Clone)]
pub struct CacheMountGuard(Arc<Held>);

#[derive(Debug)]
struct Held {
    store: Store,
    id: SnapshotId,
    lock: Option<FileLock>,
    /// The recorded size when it was acquired.
    recorded_bytes: u64,
    /// Room for what it has grown by since; released when that is recorded.
    reservation: Reservation,
}

impl CacheMountGuard {
    /// Returns the record's name in `du`.
    pub fn id(&self) -> &SnapshotId {
        &self.0.id
    }

    /// Returns where it lies, its recorded size, and what holds room for its growth.
    pub(crate) fn accounts(&self) -> (PathBuf, u64, &Reservation) {
        let path = self.0.store.layout().cache_mount(&self.0.id);
        (path, self.0.recorded_bytes, &self.0.reservation)
    }

    /// Returns how to see the cache mount, writable.
    pub fn mount(&self) -> Mount {
        Mount {
            kind: MountKind::Bind {
                source: self.0.store.cache_mount_files(&self.0.id).into(),
            },
            readonly: false,
        }
    }
}

impl Lease {
    /// Acquires the cache mounts of one step, in the order of `requests`, made where absent.
    /// Requests for the same name and seed get the same one.
    ///
    /// Waits for locked ones; `waiting` is called once if it has to.
    ///
    /// # Errors
    /// `Canceled` as soon as `canceled` returns true.
    pub fn acquire_cache_mounts(
        &self,
        requests: &[CacheMountRequest<'_>],
        canceled: &dyn Fn() -> bool,
        waiting: &dyn Fn(),
    ) -> Result<Vec<CacheMountGuard>> {
        // Two steps that need the same two locked ones take them in the same order.
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|index| (requests[*index].name, requests[*index].seed));
        let mut guards: Vec<Option<CacheMountGuard>> = vec![None; requests.len()];
        let mut previous: Option<usize> = None;
        for index in order {
            let same = previous.filter(|previous| is_same(&requests[*previous], &requests[index]));
            guards[index] = match same {
                Some(previous) => guards[previous].clone(),
                None => Some(self.acquire_cache_mount(&requests[index], canceled, waiting)?),
            };
            previous = Some(index);
        }
        Ok(guards.into_iter().flatten().collect())
    }

    fn acquire_cache_mount(
        &self,
        request: &CacheMountRequest<'_>,
        canceled: &dyn Fn() -> bool,
        waiting: &dyn Fn(),
    ) -> Result<CacheMountGuard> {
        let store = self.store();
        let mut told = false;
        let identity = Digest::sha256(format!("{}\0{}", request.name, request.seed));
        loop {
            // Finding and making is exclusive, so that two who share don't make one each.
            let making = store.lock_key(&identity, canceled, &|| {})?;
            match self.find_cache_mount(request)? {
                Found::Free(guard) => return Ok(guard),
                Found::Busy => {}
                Found::None => return self.create_cache_mount(request),
            }
            drop(making);
            wait_a_moment(canceled, waiting, &mut told)?;
        }
    }

    fn create_cache_mount(&self, request: &CacheMountRequest<'_>) -> Result<CacheMountGuard> {
        let store = self.store();
        let failed = |error: std::io::Error| {
            Error::io(
                format_args!("cannot make cache mount `{}`", request.name),
                error,
            )
        };
        let id = SnapshotId::random();
        let reservation = Reservation::new(self, EMPTY_BYTES)?;
        let directory = self.tmp()?.join(id.as_str());
        disk::make_private_dir(&directory)?;
        let files = directory.join("fs");
        disk::make_private_dir(&files)?;
        if let Some(fill) = request.fill {
            let text = format!("cannot fill cache mount `{}`", request.name);
            let root = Root::open(&files).map_err(|error| Error::tree(&text, error))?;
            fill(&root, &reservation).map_err(|error| Error::tree(&text, error))?;
        }
        if let Some((uid, gid)) = request.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chown(&files, Some(uid), Some(gid))
                .map_err(|errno| failed(errno.into()))?;
        }
        rustix::fs::chmod(&files, Mode::from_raw_mode(request.mode))
            .map_err(|errno| failed(errno.into()))?;
        let lock_mode = lock_mode(request.sharing);
        let lock = FileLock::wait(&directory.join("lock"), lock_mode)?;
        let size_bytes = disk::allocated(&directory).map_err(failed)?;
        reservation.cover(size_bytes)?;
        let _publication = store.lock_publication()?;
        std::fs::rename(&directory, store.layout().cache_mount(&id)).map_err(failed)?;
        store.write(|tx| {
            tx.prepare_cached(
                "INSERT INTO cache_mounts (id, name, seed, description, size_bytes, created_at) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                id,
                request.name,
                request.seed,
                request.description,
                size_bytes as i64,
                store.now()
            ])?;
            Ok(())
        })?;
        self.guard(id, lock, size_bytes)
    }

    fn find_cache_mount(&self, request: &CacheMountRequest<'_>) -> Result<Found> {
        let store = self.store();
        let mounts: Vec<(SnapshotId, i64)> = store.read(|db| {
            let mut list = db.prepare_cached(
                "SELECT id, size_bytes FROM cache_mounts \
                 WHERE name = ? AND seed = ? AND detached = 0 ORDER BY rowid",
            )?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let rows = list.query_map([request.name, request.seed], row)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        let mut any_busy = false;
        for (id, size_bytes) in mounts {
            let path = store.cache_mount_lock(&id);
            match FileLock::attempt_existing(&path, lock_mode(request.sharing))? {
                Existing::Held => any_busy = true,
                // It may have been emptied before it was locked, not after: a user keeps it.
                Existing::Locked(lock) if store.is_attached(&id)? => {
                    return Ok(Found::Free(self.guard(id, lock, size_bytes as u64)?));
                }
                Existing::Locked(_) | Existing::Missing => {}
            }
        }
        Ok(match request.sharing {
            Sharing::Locked if any_busy => Found::Busy,
            _ => Found::None,
        })
    }

    fn guard(
        &self,
        id: SnapshotId,
        lock: FileLock,
        recorded_bytes: u64,
    ) -> Result<CacheMountGuard> {
        Ok(CacheMountGuard(Arc::new(Held {
            store: self.store().clone(),
            id,
            lock: Some(lock),
            recorded_bytes,
            reservation: Reservation::new(self, 0)?,
        })))
    }
}

/// The outcome of a search for a cache mount.
enum Found {
    Free(CacheMountGuard),
    /// There is one to wait for.
    Busy,
    /// A new one is due.
    None,
}

impl Store {
    /// Empties the cache mounts `names`, whatever their seed, as `--no-cache` does, and returns
    /// the allocated bytes that go. A step that is using one keeps it to its end.
    pub fn empty_cache_mounts(&self, names: &[&str]) -> Result<u64> {
        let ids: Vec<SnapshotId> = self.write(|tx| {
            let mut ids = Vec::new();
            for name in names {
                let sql = "UPDATE cache_mounts SET detached = 1 \
                           WHERE name = ? AND detached = 0 RETURNING id";
                for id in tx
                    .prepare_cached(sql)?
                    .query_map([name], |row| row.get(0))?
                {
                    ids.push(id?);
                }
            }
            Ok(ids)
        })?;
        let mut freed = 0;
        for id in &ids {
            freed += disk::allocated(&self.layout().cache_mount(id))
                .map_err(|error| Error::io("cannot measure a cache mount", error))?;
            self.remove_cache_mount(id)?;
        }
        trash::empty(self.layout())?;
        Ok(freed)
    }

    /// Moves a cache mount to the trash unless it is in use; returns where it is there.
    pub(crate) fn remove_cache_mount(&self, id: &SnapshotId) -> Result<Option<PathBuf>> {
        let path = self.cache_mount_lock(id);
        let _lock = match FileLock::attempt_existing(&path, LockMode::Exclusive)? {
            Existing::Held => return Ok(None),
            Existing::Missing => None,
            Existing::Locked(lock) => Some(lock),
        };
        let sign = self.mark_removal()?;
        let _publications = self.lock_removal()?;
        self.write_durably(|tx| {
            tx.prepare_cached("DELETE FROM cache_mounts WHERE id = ?")?
                .execute([id])?;
            Ok(())
        })?;
        let discarded = trash::discard(self.layout(), &self.layout().cache_mount(id))?;
        sign.remove()?;
        Ok(Some(discarded))
    }

    /// Returns whether a step is using the cache mount.
    pub(crate) fn is_cache_mount_used(&self, id: &SnapshotId) -> Result<bool> {
        let path = self.cache_mount_lock(id);
        let existing = FileLock::attempt_existing(&path, LockMode::Exclusive)?;
        Ok(matches!(existing, Existing::Held))
    }

    /// Removes emptied cache mounts whose user is gone.
    pub(crate) fn sweep_detached(&self) -> Result<()> {
        let sql = "SELECT id FROM cache_mounts WHERE detached <> 0";
        for id in self.cache_mount_ids(sql)? {
            self.remove_cache_mount(&id)?;
        }
        Ok(())
    }

    /// Removes the rows of cache mounts whose files a power failure took.
    pub(crate) fn sweep_lost_cache_mounts(&self) -> Result<()> {
        for id in self.cache_mount_ids("SELECT id FROM cache_mounts")? {
            if !self.layout().cache_mount(&id).exists() {
                self.remove_cache_mount(&id)?;
            }
        }
        Ok(())
    }

    fn cache_mount_ids(&self, sql: &str) -> Result<Vec<SnapshotId>> {
        self.read(|db| {
            let mut list = db.prepare_cached(sql)?;
            let rows = list.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Records anew how large the unused cache mounts are: who was using one may have been killed.
    pub(crate) fn measure_cache_mounts(&self) -> Result<()> {
        for id in self.cache_mount_ids("SELECT id FROM cache_mounts")? {
            if self.is_cache_mount_used(&id)? {
                continue;
            }
            let size_bytes = disk::allocated(&self.layout().cache_mount(&id))
                .map_err(|error| Error::io("cannot measure a cache mount", error))?;
            self.write(|tx| {
                tx.prepare_cached("UPDATE cache_mounts SET size_bytes = ? WHERE id = ?")?
                    .execute(params![size_bytes as i64, id])?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn is_attached(&self, id: &SnapshotId) -> Result<bool> {
        self.read(|db| {
            let sql = "SELECT 1 FROM cache_mounts WHERE id = ? AND detached = 0";
            Ok(db.prepare_cached(sql)?.exists([id])?)
        })
    }

    fn cache_mount_files(&self, id: &SnapshotId) -> PathBuf {
        self.layout().cache_mount(id).join("fs")
    }

    fn cache_mount_lock(&self, id: &SnapshotId) -> PathBuf {
        self.layout().cache_mount(id).join("lock")
    }
}

impl Held {
    /// Records the use and the size; removes the mount if it was emptied meanwhile.
    fn end(&mut self) -> Result<()> {
        let size_bytes = disk::allocated(&self.store.layout().cache_mount(&self.id))
            .map_err(|error| Error::io("cannot measure a cache mount", error))?;
        let grown_bytes = size_bytes.saturating_sub(self.recorded_bytes);
        if let Err(error) = self.reservation.cover(grown_bytes) {
            tracing::warn!(%error, "a cache mount has outgrown the ceiling");
        }
        let detached: Vec<bool> = self.store.write(|tx| {
            let mut update = tx.prepare_cached(
                "UPDATE cache_mounts \
                 SET size_bytes = ?, last_used_at = ?, usage_count = usage_count + 1 \
                 WHERE id = ? RETURNING detached",
            )?;
            let row = params![size_bytes as i64, self.store.now(), self.id];
            let rows = update.query_map(row, |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        drop(self.lock.take());
        if detached == [true] && self.store.remove_cache_mount(&self.id)?.is_some() {
            trash::empty(self.store.layout())?;
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "the use of a cache mount was not recorded");
        }
    }
}

fn is_same(one: &CacheMountRequest<'_>, other: &CacheMountRequest<'_>) -> bool {
    (one.name, one.seed) == (other.name, other.seed)
}

fn lock_mode(sharing: Sharing) -> LockMode {
    match sharing {
        Sharing::Shared => LockMode::Shared,
        Sharing::Private | Sharing::Locked => LockMode::Exclusive,
    }
}
