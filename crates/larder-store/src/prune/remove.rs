//! Removal of single records, each checked again in the transaction that removes it.

use std::path::PathBuf;

use larder_oci::Digest;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::lease::{self, Held};
use crate::snapshot::digest_column;
use crate::trash::{self, Removers};
use crate::usage::{Kind, Loaded};
use crate::{Result, SnapshotId, Store, UsageRecord, image};

/// Files to be moved to the trash once their rows are gone.
type Files = Vec<PathBuf>;

impl Store {
    /// Removes those of `batch` that nothing has come to need since it was loaded, and leaves their
    /// files to `removers`. Returns what was removed, with the bytes freed.
    pub(super) fn remove_records(
        &self,
        batch: &[&Loaded],
        removers: &mut Removers,
    ) -> Result<Vec<UsageRecord>> {
        let mut removed = Vec::new();
        let sign = self.mark_removal()?;
        let publications = self.lock_removal()?;
        let files = self.write_durably(|tx| {
            let held = lease::held(self, &lease::living(self)?)?;
            let mut files = Files::new();
            for loaded in batch {
                let freed = match &loaded.kind {
                    Kind::Snapshot if loaded.record.shared => forget(self, tx, &loaded.record.id)?,
                    Kind::Snapshot => remove_snapshot(self, tx, loaded, &held, &mut files)?,
                    Kind::Blob(digest) => remove_blob(self, tx, digest, true, &held, &mut files)?,
                    Kind::CacheMount | Kind::Unfinished => None,
                };
                if let Some(size_bytes) = freed {
                    removed.push(UsageRecord {
                        size_bytes,
                        ..loaded.record.clone()
                    });
                }
            }
            Ok(files)
        })?;
        for file in &files {
            removers.remove(trash::discard(self.layout(), file)?)?;
        }
        drop(publications);
        sign.remove()?;
        for loaded in batch {
            if loaded.kind == Kind::CacheMount
                && let Some(discarded) = self.remove_cache_mount(&loaded.record.id)?
            {
                removers.remove(discarded)?;
                removed.push(loaded.record.clone());
            }
        }
        Ok(removed)
    }
}

/// Removes those of `blobs` that nothing needs any more.
pub(crate) fn remove_loose_blobs(store: &Store, blobs: &[Digest]) -> Result<()> {
    let sign = store.mark_removal()?;
    let publications = store.lock_removal()?;
    let files = store.write_durably(|tx| {
        let held = lease::held(store, &lease::living(store)?)?;
        let mut files = Files::new();
        for digest in blobs {
            remove_blob(store, tx, digest, false, &held, &mut files)?;
        }
        Ok(files)
    })?;
    let mut removers = Removers::new();
    for file in &files {
        removers.remove(trash::discard(store.layout(), file)?)?;
    }
    drop(publications);
    sign.remove()?;
    removers.finish()
}

/// Takes a snapshot's cache results away, and remembers that. Returns `Some(0)` if it had any.
fn forget(store: &Store, tx: &Transaction<'_>, id: &SnapshotId) -> Result<Option<u64>> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO tombstones (key, pruned_at) \
         SELECT key, ? FROM results WHERE snapshot = ?",
    )?
    .execute(params![store.now(), id])?;
    let count = tx
        .prepare_cached("DELETE FROM results WHERE snapshot = ?")?
        .execute([id])?;
    Ok((count > 0).then_some(0))
}

/// Removes a snapshot unless something needs it; returns the bytes that frees.
fn remove_snapshot(
    store: &Store,
    tx: &Transaction<'_>,
    loaded: &Loaded,
    held: &Held,
    files: &mut Files,
) -> Result<Option<u64>> {
    let id = &loaded.record.id;
    if held.snapshots.contains(id) {
        return Ok(None);
    }
    let needed = "SELECT 1 FROM snapshot_parents JOIN snapshots ON id = child \
          WHERE parent = ?1 AND form <> 'flat' \
        UNION ALL SELECT 1 FROM snapshot_devices WHERE device = ?1 \
        UNION ALL SELECT 1 FROM images JOIN tags USING (manifest) WHERE snapshot = ?1 \
        UNION ALL SELECT 1 FROM image_platforms JOIN tags ON tags.manifest = image \
          WHERE snapshot = ?1";
    let known = "SELECT 1 FROM snapshots WHERE id = ?";
    if !tx.prepare_cached(known)?.exists([id])? || tx.prepare_cached(needed)?.exists([id])? {
        return Ok(None);
    }
    let mut freed = 0;
    let mut blobs: Vec<Digest> = digests(
        tx,
        "SELECT digest FROM layer_blobs WHERE snapshot = ?",
        id.as_str(),
    )?;
    for manifest in digests(
        tx,
        "SELECT manifest FROM images WHERE snapshot = ?1 \
         UNION SELECT image FROM image_platforms WHERE snapshot = ?1",
        id.as_str(),
    )? {
        blobs.extend(image::delete(tx, &manifest)?);
    }
    forget(store, tx, id)?;
    for flat in flat_forms(tx, id)? {
        freed += remove_row(store, tx, &flat, files)?;
    }
    freed += remove_row(store, tx, id, files)?;
    for digest in &blobs {
        freed += remove_blob(store, tx, digest, false, held, files)?.unwrap_or(0);
    }
    Ok(Some(freed))
}

/// Returns the flattened forms of a snapshot, which go with it.
fn flat_forms(tx: &Transaction<'_>, id: &SnapshotId) -> Result<Vec<SnapshotId>> {
    let mut list = tx.prepare_cached("SELECT child FROM snapshot_parents WHERE parent = ?")?;
    let rows = list.query_map([id], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn remove_row(
    store: &Store,
    tx: &Transaction<'_>,
    id: &SnapshotId,
    files: &mut Files,
) -> Result<u64> {
    let size: i64 = tx
        .prepare_cached("DELETE FROM snapshots WHERE id = ? RETURNING size_bytes")?
        .query_row([id], |row| row.get(0))?;
    files.push(store.layout().snapshot(id));
    Ok(size as u64)
}

/// Removes a blob unless something needs it; returns the bytes that frees. With `nameless`,
/// images without a name don't count, and go with it.
fn remove_blob(
    store: &Store,
    tx: &Transaction<'_>,
    digest: &Digest,
    nameless: bool,
    held: &Held,
    files: &mut Files,
) -> Result<Option<u64>> {
    if held.blobs.contains(digest) {
        return Ok(None);
    }
    let needed = "SELECT 1 FROM layer_blobs WHERE digest = ?1 \
        UNION ALL SELECT 1 FROM image_blobs WHERE digest = ?1 AND \
          (NOT ?2 OR EXISTS (SELECT 1 FROM tags WHERE manifest = image))";
    if tx
        .prepare_cached(needed)?
        .exists(params![digest.as_str(), nameless])?
    {
        return Ok(None);
    }
    for manifest in digests(
        tx,
        "SELECT image FROM image_blobs WHERE digest = ?",
        digest.as_str(),
    )? {
        image::delete(tx, &manifest)?;
    }
    let size: Option<i64> = tx
        .prepare_cached("DELETE FROM blobs WHERE digest = ? RETURNING allocated_bytes")?
        .query_row([digest.as_str()], |row| row.get(0))
        .optional()?;
    files.extend(size.map(|_| store.blob_file(digest)));
    Ok(size.map(|size| size as u64))
}

fn digests(tx: &Transaction<'_>, sql: &str, parameter: &str) -> Result<Vec<Digest>> {
    let mut list = tx.prepare_cached(sql)?;
    let rows = list.query_map([parameter], |row| digest_column(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
