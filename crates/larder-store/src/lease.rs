use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use larder_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::ceiling::Ledger;
use crate::id::random_text;
use crate::lock::{Existing, FileLock, LockMode};
use crate::{Error, ErrorKind, KeyDep, KeyMatch, Result, SnapshotId, Store, disk};

/// A build's protection against prune: take it before the first look-up.
///
/// Whatever is found, held or made through a lease stays, with all it builds on, until the lease
/// is released, its last clone is dropped, or its process dies. Blobs being written and active
/// snapshots keep their lease alive.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Inner>);

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
}

impl Store {
    /// Takes a lease.
    pub fn lease(&self) -> Result<Lease> {
        let id = random_text();
        let lock = FileLock::wait(&self.layout().lease(&id), LockMode::Exclusive)?;
        let inner = Inner {
            store: self.clone(),
            id,
            lock: Some(lock),
            tmp: OnceLock::new(),
            ledger: Ledger::default(),
        };
        self.write(|tx| {
            tx.prepare_cached("INSERT INTO leases (id, started_at) VALUES (?, ?)")?
                .execute(params![inner.id, self.now()])?;
            Ok(())
        })?;
        Ok(Lease(Arc::new(inner)))
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
        self.store().write(|tx| {
            for id in snapshots {
                if !exists(tx, "SELECT 1 FROM snapshots WHERE id = ?", id.as_str())? {
                    return Ok(false);
                }
            }
            for digest in blobs {
                if !exists(tx, "SELECT 1 FROM blobs WHERE digest = ?", digest.as_str())? {
                    return Ok(false);
                }
            }
            for id in snapshots {
                self.record_snapshot(tx, id)?;
            }
            for digest in blobs {
                self.record_blob(tx, digest)?;
            }
            Ok(true)
        })
    }

    /// Returns the snapshot whose layers have the chain ID `chain_id`, and protects it.
    pub fn snapshot_by_chain_id(&self, chain_id: &Digest) -> Result<Option<SnapshotId>> {
        let sql = "SELECT id FROM snapshots WHERE chain_id = ?";
        let find = |db: &Connection| -> Result<Option<SnapshotId>> {
            let mut statement = db.prepare_cached(sql)?;
            let found: Option<SnapshotId> = statement
                .query_row([chain_id.as_str()], |row| row.get(0))
                .optional()?;
            match found {
                Some(id) if !self.store().is_visible(db, &id)? => Ok(None),
                found => Ok(found),
            }
        };
        if self.store().read(find)?.is_none() {
            return Ok(None);
        }
        self.store().write(|tx| {
            let found = find(tx)?;
            if let Some(id) = &found {
                self.record_snapshot(tx, id)?;
            }
            Ok(found)
        })
    }

    /// As [`Store::query`], protecting the snapshot of the first match that has a result; that
    /// match is then the first of the list.
    pub fn query(&self, op: &Digest, output: i32, deps: &[Vec<KeyDep>]) -> Result<Vec<KeyMatch>> {
        loop {
            let matches = self.store().query(op, output, deps)?;
            let Some(result) = matches.first().and_then(|found| found.result.as_ref()) else {
                return Ok(matches);
            };
            if self.hold_snapshots(std::slice::from_ref(&result.snapshot))? {
                return Ok(matches);
            }
            tracing::debug!(snapshot = %result.snapshot, "a result was pruned while it was looked up");
        }
    }

    /// Ends the protection, and counts one use of all that was protected. Takes effect when the
    /// last clone is gone; errors of a release by drop are only logged.
    pub fn release(self) -> Result<()> {
        Arc::into_inner(self.0).map_or(Ok(()), |mut inner| inner.end())
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Returns the lock by which others see that the lease lives.
    pub(crate) fn lock(&self) -> Result<&FileLock> {
        let ended = || Error::new(ErrorKind::Internal, "a lease that has ended is used");
        self.0.lock.as_ref().ok_or_else(ended)
    }

    /// Adds a snapshot to what is protected, in the caller's transaction.
    pub(crate) fn record_snapshot(&self, tx: &Transaction<'_>, id: &SnapshotId) -> Result<()> {
        tx.prepare_cached("INSERT OR IGNORE INTO held_snapshots (lease, snapshot) VALUES (?, ?)")?
            .execute(params![self.0.id, id])?;
        Ok(())
    }

    /// Adds a blob to what is protected, in the caller's transaction.
    pub(crate) fn record_blob(&self, tx: &Transaction<'_>, digest: &Digest) -> Result<()> {
        tx.prepare_cached("INSERT OR IGNORE INTO held_blobs (lease, digest) VALUES (?, ?)")?
            .execute(params![self.0.id, digest.as_str()])?;
        Ok(())
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

impl Inner {
    fn end(&mut self) -> Result<()> {
        let Some(lock) = self.lock.take() else {
            return Ok(());
        };
        self.store.write(|tx| {
            tx.prepare_cached(
                "UPDATE snapshots SET last_used_at = ?1, usage_count = usage_count + 1 \
                 WHERE id IN (SELECT snapshot FROM held_snapshots WHERE lease = ?2)",
            )?
            .execute(params![self.store.now(), self.id])?;
            tx.prepare_cached(
                "UPDATE blobs SET last_used_at = ?1, usage_count = usage_count + 1 \
                 WHERE digest IN (SELECT digest FROM held_blobs WHERE lease = ?2)",
            )?
            .execute(params![self.store.now(), self.id])?;
            tx.prepare_cached("DELETE FROM leases WHERE id = ?")?
                .execute([&self.id])?;
            Ok(())
        })?;
        self.store.mounts().drop_idle();
        if let Some(tmp) = self.tmp.take() {
            disk::remove(&tmp)?;
        }
        lock.remove()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a lease is left for the next prune to end");
        }
    }
}

fn exists(tx: &Transaction<'_>, sql: &str, name: &str) -> Result<bool> {
    Ok(tx.prepare_cached(sql)?.exists([name])?)
}

/// Whether the lease `id` has a living owner.
///
/// A lease's file is locked before its row is made and removed after it, so a row without a
/// locked file is a dead one.
pub(crate) fn is_live(store: &Store, id: &str) -> Result<bool> {
    match FileLock::attempt_existing(&store.layout().lease(id), LockMode::Shared)? {
        Existing::Held => Ok(true),
        Existing::Missing | Existing::Locked(_) => Ok(false),
    }
}

/// Deletes the rows of dead leases, and returns whether any lease lives.
pub(crate) fn end_dead(store: &Store, tx: &Transaction<'_>) -> Result<bool> {
    let ids: Vec<String> = tx
        .prepare_cached("SELECT id FROM leases")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut any = false;
    for id in ids {
        if is_live(store, &id)? {
            any = true;
        } else {
            tx.prepare_cached("DELETE FROM leases WHERE id = ?")?
                .execute([&id])?;
        }
    }
    Ok(any)
}
