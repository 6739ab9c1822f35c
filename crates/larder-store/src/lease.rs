use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use larder_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::ceiling::Ledger;
use crate::id::random_text;
use crate::key::find_matches;
use crate::lock::{Existing, FileLock, LockMode};
use crate::{Error, ErrorKind, KeyDep, KeyMatch, Result, SnapshotId, Store, disk};

mod held;

pub(crate) use held::{Held, held, living};

/// A build's protection against prune: take it before the first look-up.
///
/// Whatever is found, held or made through a lease stays, with all it builds on, until the lease
/// is released, its last clone is dropped, or its process dies. Blobs being written and active
/// snapshots keep their lease alive.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Inner>);

/// A lease that may have ended.
#[derive(Debug)]
pub(crate) struct WeakLease(Weak<Inner>);

impl WeakLease {
    pub(crate) fn upgrade(&self) -> Option<Lease> {
        self.0.upgrade().map(Lease)
    }
}

#[derive(Debug)]
struct Inner {
    store: Store,
    id: String,
    /// Held as long as the lease lives; the only sign of life that others trust.
    lock: Option<FileLock>,
    /// Where what is being written lies; made when first needed.
    tmp: OnceLock<PathBuf>,
    /// What is reserved for what it writes.
    ledger: Ledger,
    /// What it protects, as its file says too.
    held: Mutex<Held>,
}

impl Store {
    /// Takes a lease.
    pub fn lease(&self) -> Result<Lease> {
        let id = random_text();
        let lock = FileLock::wait(&self.layout().lease(&id), LockMode::Exclusive)?;
        // Who removes keys has seen the lease, or has ended when this is had. It is not held before: a
        // sweep may take the new file for one of the dead, and wants the other side of it.
        drop(self.lock_publication()?);
        Ok(Lease(Arc::new(Inner {
            store: self.clone(),
            id,
            lock: Some(lock),
            tmp: OnceLock::new(),
            ledger: Ledger::default(),
            held: Mutex::default(),
        })))
    }
}

impl Lease {
    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Protects `snapshots`, with all they build on. Returns false, and protects none, if one
    /// does not exist (any more).
    pub fn hold_snapshots(&self, snapshots: &[SnapshotId]) -> Result<bool> {
        self.hold(snapshots, &[])
    }

    /// Protects `blobs`. Returns false, and protects none, if one is not stored (any more).
    pub fn hold_blobs(&self, blobs: &[Digest]) -> Result<bool> {
        self.hold(&[], blobs)
    }

    /// Protects `snapshots`, with all they build on, and `blobs`. Returns false, and protects
    /// none, if one does not exist (any more).
    pub fn hold(&self, snapshots: &[SnapshotId], blobs: &[Digest]) -> Result<bool> {
        if self.0.holds(snapshots, blobs) {
            return Ok(true);
        }
        let _no_removals = self.store().lock_publication()?;
        let all_exist = self.store().read(|db| {
            for id in snapshots {
                if !exists(db, "SELECT 1 FROM snapshots WHERE id = ?", id.as_str())? {
                    return Ok(false);
                }
            }
            for digest in blobs {
                if !exists(db, "SELECT 1 FROM blobs WHERE digest = ?", digest.as_str())? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if all_exist {
            self.protect(snapshots, blobs)?;
        }
        Ok(all_exist)
    }

    /// Returns the snapshot whose layers have the chain ID `chain_id`, and protects it.
    pub fn snapshot_by_chain_id(&self, chain_id: &Digest) -> Result<Option<SnapshotId>> {
        let _no_removals = self.store().lock_publication()?;
        let found: Option<SnapshotId> = self.store().read(|db| {
            let mut find = db.prepare_cached("SELECT id FROM snapshots WHERE chain_id = ?")?;
            let found = find.query_row([chain_id.as_str()], |row| row.get(0));
            Ok(found.optional()?)
        })?;
        self.protect(found.as_slice(), &[])?;
        Ok(found)
    }

    /// As [`Store::query`], protecting the snapshot of the first match that has a result; that
    /// match is then the first of the list.
    pub fn query(&self, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) -> Result<Vec<KeyMatch>> {
        self.look_ups()?.query(op, output, deps)
    }

    /// Begins look-ups that follow one another. Nothing is removed from the store until they end, and who
    /// wants to waits: to be ended before anything else is done.
    pub fn look_ups(&self) -> Result<LookUps> {
        let no_removals = self.store().lock_publication()?;
        // What others have made known since another's look-ups began is found.
        self.store().stop_reading_on()?;
        Ok(LookUps {
            lease: self.clone(),
            _no_removals: no_removals,
        })
    }

    /// Ends the protection, and counts one use of all that was protected. Takes effect when the
    /// last clone is gone; errors of a release by drop are only logged.
    pub fn release(self) -> Result<()> {
        Arc::into_inner(self.0).map_or(Ok(()), |mut inner| inner.end())
    }

    /// Returns the lease for something that does not keep it alive.
    pub(crate) fn downgrade(&self) -> WeakLease {
        WeakLease(Arc::downgrade(&self.0))
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Returns the lock by which others see that the lease lives.
    pub(crate) fn lock(&self) -> Result<&FileLock> {
        let ended = || Error::new(ErrorKind::Internal, "a lease that has ended is used");
        self.0.lock.as_ref().ok_or_else(ended)
    }

    /// Adds to what is protected. To be called while removal is locked, or within the transaction
    /// that makes something known: before that ends, nobody can remove it.
    pub(crate) fn protect(&self, snapshots: &[SnapshotId], blobs: &[Digest]) -> Result<()> {
        self.0.held().add(self.lock()?, snapshots, blobs)
    }

    /// Returns the path of the file that others see the lease by.
    pub(crate) fn path(&self) -> PathBuf {
        self.store().layout().lease(&self.0.id)
    }

    /// Returns the lease's own directory for unfinished things.
    pub(crate) fn tmp(&self) -> Result<&Path> {
        if let Some(path) = self.0.tmp.get() {
            return Ok(path);
        }
        let path = self.store().layout().tmp().join(&self.0.id);
        match disk::make_private_dir(&path) {
            Err(_) if path.is_dir() => {}
            made => made?,
        }
        disk::spread(&path);
        Ok(self.0.tmp.get_or_init(|| path))
    }
}

/// Look-ups that follow one another, which cost less together.
///
/// They see one state of the store, that of the first of them; of what others have made known since they need not
/// find anything.
#[derive(Debug)]
pub struct LookUps {
    lease: Lease,
    _no_removals: FileLock,
}

impl LookUps {
    /// As [`Lease::query`].
    pub fn query(&self, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) -> Result<Vec<KeyMatch>> {
        let store = self.lease.store();
        let matches = store.read_on(|db| find_matches(db, op, output, deps))?;
        if let Some(result) = matches.first().and_then(|found| found.result.as_ref()) {
            let snapshot = std::slice::from_ref(&result.snapshot);
            self.lease.protect(snapshot, &[])?;
        }
        Ok(matches)
    }
}

impl Drop for LookUps {
    fn drop(&mut self) {
        if let Err(error) = self.lease.store().stop_reading_on() {
            tracing::warn!(%error, "a transaction that only read did not end");
        }
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, snapshots: &[SnapshotId], blobs: &[Digest]) -> bool {
        let held = self.held();
        snapshots.iter().all(|id| held.snapshots.contains(id))
            && blobs.iter().all(|digest| held.blobs.contains(digest))
    }

    fn end(&mut self) -> Result<()> {
        let Some(lock) = self.lock.take() else {
            return Ok(());
        };
        self.store.flush()?;
        let held = std::mem::take(&mut *self.held());
        if !held.snapshots.is_empty() || !held.blobs.is_empty() {
            self.store
                .write(|tx| count_use(tx, &held, self.store.now()))?;
            self.store.cut_log()?;
        }
        self.store.lowers().clear();
        self.store.mounts().drop_idle();
        if let Some(tmp) = self.tmp.take() {
            disk::remove(&tmp)?;
        }
        lock.remove()
    }
}

fn count_use(tx: &Transaction<'_>, held: &Held, now: i64) -> Result<()> {
    let mut snapshots = tx.prepare_cached(
        "UPDATE snapshots SET last_used_at = ?, usage_count = usage_count + 1 WHERE id = ?",
    )?;
    for id in &held.snapshots {
        snapshots.execute(params![now, id])?;
    }
    let mut blobs = tx.prepare_cached(
        "UPDATE blobs SET last_used_at = ?, usage_count = usage_count + 1 WHERE digest = ?",
    )?;
    for digest in &held.blobs {
        blobs.execute(params![now, digest.as_str()])?;
    }
    Ok(())
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a lease is left for the next prune to end");
        }
    }
}

fn exists(db: &Connection, sql: &str, name: &str) -> Result<bool> {
    Ok(db.prepare_cached(sql)?.exists([name])?)
}

/// Whether the lease `id` has a living owner, which holds its file locked.
pub(crate) fn is_live(store: &Store, id: &str) -> Result<bool> {
    match FileLock::attempt_existing(&store.layout().lease(id), LockMode::Shared)? {
        Existing::Held => Ok(true),
        Existing::Missing | Existing::Locked(_) => Ok(false),
    }
}
