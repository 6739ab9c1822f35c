//! What is written is not forced to the disk at once: its rows are *unsettled* until one
//! `syncfs` has covered them. Of an unsettled row of an earlier boot the files are read: if they are
//! not what they were, it is forgotten.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use larder_oci::Digest;
use larder_tree::diff::{DigestWriter, LayerOptions};
use rusqlite::{Transaction, params};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::db::to_nanos;
use crate::snapshot::{Form, digest_column, optional_digest_column};
use crate::{Error, Result, SnapshotId, Store};

/// Unsettled rows wait at least this long, by when the kernel has written most of their bytes by
/// itself (`dirty_expire_centisecs` is 30 s), so that the `syncfs` finds little to do.
const SETTLE_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// Returns the name of the machine's present run; constant where the kernel doesn't tell.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Who settles in this process.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// Whether a thread is going to settle what is stored now.
    is_coming: AtomicBool,
    /// Held while one does.
    turn: Mutex<()>,
}

impl Store {
    /// Has what is being stored settled by a thread, a moment later.
    ///
    /// Who is killed before that, or ends, leaves it to the next process.
    pub(crate) fn settle_soon(&self) {
        let Some(after) = self.settle_after() else {
            return;
        };
        if self.settling().is_coming.swap(true, Ordering::SeqCst) {
            return;
        }
        let store = self.while_open();
        let settle = move || {
            std::thread::sleep(after);
            let settled = store().map_or(Ok(()), |store| store.settle_in_turn());
            if let Err(error) = settled {
                tracing::debug!(%error, "what was stored is not forced to the disk");
            }
        };
        let thread = std::thread::Builder::new().name("larder-settle".to_owned());
        if let Err(error) = thread.spawn(settle) {
            tracing::debug!(%error, "nobody settles what is stored");
            self.settling().is_coming.store(false, Ordering::SeqCst);
        }
    }

    fn settle_in_turn(&self) -> Result<()> {
        let turn = &self.settling().turn;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        // What is stored from here on is another's.
        self.settling().is_coming.store(false, Ordering::SeqCst);
        self.settle()
    }

    /// Forces all that was stored so far to the disk, so that it survives a power failure too.
    ///
    /// Waits for the disk. Without it, what a power failure takes is noticed and made again.
    pub fn settle(&self) -> Result<()> {
        let rows = self.read(|db| {
            let mut list = db.prepare_cached(
                "SELECT 1, id, created_at FROM snapshots WHERE unsettled IS NOT NULL \
                 UNION ALL SELECT 0, digest, created_at FROM blobs WHERE unsettled IS NOT NULL",
            )?;
            let rows = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<rusqlite::Result<Vec<(bool, String, i64)>>>()?)
        })?;
        if rows.is_empty() {
            return Ok(());
        }
        let failed = |error: io::Error| Error::io("cannot force the store to the disk", error);
        let failed_errno = |errno: Errno| failed(errno.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(self.root(), flags, Mode::empty()).map_err(failed_errno)?;
        rustix::fs::syncfs(&root).map_err(failed_errno)?;
        self.write(|tx| {
            for (is_snapshot, name, created_at) in &rows {
                // The time tells a blob from one that was stored again meanwhile.
                let sql = if *is_snapshot {
                    "UPDATE snapshots SET unsettled = NULL WHERE id = ? AND created_at = ?"
                } else {
                    "UPDATE blobs SET unsettled = NULL WHERE digest = ? AND created_at = ?"
                };
                tx.prepare_cached(sql)?.execute(params![name, created_at])?;
            }
            Ok(())
        })?;
        // Not by a commit that waits: other writers would wait with it.
        let log = std::fs::File::open(self.layout().database_log());
        log.and_then(|log| log.sync_data()).map_err(failed)
    }

    /// Settles if something has waited long enough.
    pub(crate) fn settle_if_due(&self) -> Result<()> {
        let due = self.now() - to_nanos(jiff::Timestamp::UNIX_EPOCH + SETTLE_AFTER);
        let any = self.read(|db| {
            let sql = "SELECT EXISTS (SELECT 1 FROM snapshots WHERE unsettled = ?1 AND created_at < ?2) \
                       OR EXISTS (SELECT 1 FROM blobs WHERE unsettled = ?1 AND created_at < ?2)";
            let mut any = db.prepare_cached(sql)?;
            Ok(any.query_row(params![self.boot(), due], |row| row.get::<_, bool>(0))?)
        })?;
        if any { self.settle() } else { Ok(()) }
    }

    /// Looks at what was not settled when the machine went down, and forgets that of which the disk
    /// may have lost something.
    pub(crate) fn recover_unsettled(&self) -> Result<()> {
        let stale = self.read(|db| {
            // Not `<>`, for which SQLite reads the whole index.
            let sql = "SELECT EXISTS (SELECT 1 FROM snapshots WHERE unsettled < ?1) \
                       OR EXISTS (SELECT 1 FROM snapshots WHERE unsettled > ?1) \
                       OR EXISTS (SELECT 1 FROM blobs WHERE unsettled < ?1) \
                       OR EXISTS (SELECT 1 FROM blobs WHERE unsettled > ?1)";
            Ok(db
                .prepare_cached(sql)?
                .query_row([self.boot()], |row| row.get::<_, bool>(0))?)
        })?;
        if !stale {
            return Ok(());
        }
        let publications = self.lock_removal()?;
        let whole = self.whole_of_other_boots()?;
        self.write_durably(|tx| {
            whole.keep(tx, self.boot())?;
            forget(tx, self.boot())
        })?;
        self.sweep_unreferenced()?;
        drop(publications);
        self.settle_soon();
        self.sweep_lost_cache_mounts()
    }

    /// Reads the files of all unsettled rows of other boots.
    fn whole_of_other_boots(&self) -> Result<Whole> {
        let (snapshots, blobs) = self.read(|db| {
            let mut snapshots = db.prepare(
                "SELECT id, form, diff_id, EXISTS (SELECT 1 FROM snapshot_parents WHERE child = id) \
                 FROM snapshots WHERE unsettled IS NOT NULL AND unsettled <> ?",
            )?;
            let snapshots = snapshots.query_map([self.boot()], |row| {
                Ok(Unsettled {
                    id: row.get(0)?,
                    form: row.get(1)?,
                    diff_id: optional_digest_column(row, 2)?,
                    has_parents: row.get(3)?,
                })
            })?;
            let snapshots = snapshots.collect::<rusqlite::Result<Vec<_>>>()?;
            let mut blobs = db.prepare(
                "SELECT digest FROM blobs WHERE unsettled IS NOT NULL AND unsettled <> ?",
            )?;
            let blobs = blobs.query_map([self.boot()], |row| digest_column(row, 0))?;
            Ok((snapshots, blobs.collect::<rusqlite::Result<Vec<_>>>()?))
        })?;
        let snapshots = snapshots.into_iter().filter(|it| self.is_whole(it));
        let whole = Whole {
            snapshots: snapshots.map(|it| it.id).collect(),
            blobs: blobs
                .into_iter()
                .filter(|it| self.is_blob_whole(it))
                .collect(),
        };
        // What was read may lie upon what is forgotten.
        self.lowers().clear();
        Ok(whole)
    }

    /// Returns whether a snapshot has the files that it had: a diff ID covers them with their
    /// attributes. Where none is known, nobody can tell.
    fn is_whole(&self, snapshot: &Unsettled) -> bool {
        match (snapshot.form, &snapshot.diff_id) {
            // It has no files.
            (Form::Merge, _) => snapshot.has_parents,
            (Form::Directory | Form::Tree, Some(diff_id)) => self
                .write_layer(&snapshot.id, io::sink(), &LayerOptions::default())
                .is_ok_and(|(found, _)| found == *diff_id),
            (Form::Directory | Form::Tree | Form::Flat, _) => false,
        }
    }

    fn is_blob_whole(&self, digest: &Digest) -> bool {
        let mut out = DigestWriter::new(io::sink());
        let read = self
            .open_blob(digest)
            .is_ok_and(|mut file| io::copy(&mut file, &mut out).is_ok());
        read && out.finish().1 == *digest
    }
}

/// A snapshot's row that is not settled.
struct Unsettled {
    id: SnapshotId,
    form: Form,
    diff_id: Option<Digest>,
    has_parents: bool,
}

/// What is as it was stored.
struct Whole {
    snapshots: Vec<SnapshotId>,
    blobs: Vec<Digest>,
}

impl Whole {
    /// Takes the rows for those of this boot. What was read may come from memory still: it is to be
    /// forced to the disk like what is stored now.
    fn keep(&self, tx: &Transaction<'_>, boot: &str) -> Result<()> {
        let mut snapshots = tx.prepare("UPDATE snapshots SET unsettled = ? WHERE id = ?")?;
        for id in &self.snapshots {
            snapshots.execute(params![boot, id])?;
        }
        let mut blobs = tx.prepare("UPDATE blobs SET unsettled = ? WHERE digest = ?")?;
        for digest in &self.blobs {
            blobs.execute(params![boot, digest.as_str()])?;
        }
        Ok(())
    }
}

/// Deletes the rows of other boots that are still unsettled, and all that builds on them.
fn forget(tx: &Transaction<'_>, boot: &str) -> Result<()> {
    let lost_blobs = "SELECT digest FROM blobs WHERE unsettled IS NOT NULL AND unsettled <> ?1";
    let lost_snapshots = "WITH RECURSIVE lost (id) AS ( \
           SELECT id FROM snapshots WHERE unsettled IS NOT NULL AND unsettled <> ?1 \
           UNION SELECT p.child FROM snapshot_parents p JOIN lost ON p.parent = lost.id \
           UNION SELECT d.snapshot FROM snapshot_devices d JOIN lost ON d.device = lost.id) \
         SELECT id FROM lost";
    tx.execute(
        &format!(
            "DELETE FROM images WHERE manifest IN ({lost_blobs}) \
             OR manifest IN (SELECT image FROM image_blobs WHERE digest IN ({lost_blobs})) \
             OR snapshot IN ({lost_snapshots}) \
             OR manifest IN (SELECT image FROM image_platforms WHERE snapshot IN ({lost_snapshots}))"
        ),
        [boot],
    )?;
    tx.execute(
        &format!("DELETE FROM blobs WHERE digest IN ({lost_blobs})"),
        [boot],
    )?;
    let lost: Vec<SnapshotId> = tx
        .prepare(lost_snapshots)?
        .query_map([boot], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &lost {
        tx.execute("DELETE FROM snapshot_parents WHERE child = ?", [id])?;
        tx.execute("DELETE FROM snapshot_devices WHERE snapshot = ?", [id])?;
    }
    for id in &lost {
        tx.execute("DELETE FROM snapshots WHERE id = ?", [id])?;
    }
    tracing::info!(
        snapshots = lost.len(),
        "records that a power failure may have cut short are made again"
    );
    Ok(())
}
