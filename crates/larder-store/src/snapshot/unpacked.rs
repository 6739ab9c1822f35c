//! Images where none can be mounted: they are unpacked into directories, each once.

use std::path::PathBuf;

use larder_tree::apply::{ApplyOptions, apply_image};
use larder_tree::erofs::Reader;
use rusqlite::{OptionalExtension, params};

use super::active::SnapshotRow;
use super::chain::{Form, Packing, Role};
use super::layer::{make_files, unpacked_form};
use crate::ceiling::Reservation;
use crate::lock::{FileLock, LockMode};
use crate::{Error, Lease, RecordType, Result, SnapshotId, Store, disk};

/// What the directories of an empty layer take.
const EMPTY_BYTES: u64 = 8 << 10;

impl Store {
    /// Returns the directory that the image of `id` was unpacked into; it is made if there is none. It goes
    /// with the snapshot.
    pub(super) fn unpacked(&self, id: &SnapshotId) -> Result<PathBuf> {
        if let Some(known) = self.known_unpacked(id)? {
            return Ok(self.files(&known));
        }
        // One at a time, in all processes: another would most often do the same.
        let _turn = FileLock::wait(&self.layout().lock("unpacking"), LockMode::Exclusive)?;
        let unpacked = match self.known_unpacked(id)? {
            Some(known) => known,
            None => self.lease()?.add_unpacked(id)?,
        };
        Ok(self.files(&unpacked))
    }

    fn known_unpacked(&self, id: &SnapshotId) -> Result<Option<SnapshotId>> {
        self.read(|db| {
            let mut find = db.prepare_cached(
                "SELECT id FROM snapshot_parents JOIN snapshots ON id = child \
                 WHERE parent = ? AND form = 'flat' AND role = ?",
            )?;
            let found = find.query_row(params![id, Role::Layer.as_str()], |row| row.get(0));
            Ok(found.optional()?)
        })
    }
}

impl Lease {
    /// Unpacks the image of `image` into a directory, and records it.
    fn add_unpacked(&self, image: &SnapshotId) -> Result<SnapshotId> {
        let store = self.store();
        let failed = |error| {
            let text = format_args!("cannot unpack the image of snapshot `{image}`");
            Error::tree(text, error)
        };
        let id = SnapshotId::random();
        let reservation = Reservation::new(self, EMPTY_BYTES)?;
        let directory = self.tmp()?.join(id.as_str());
        let mut warn = |warning| tracing::debug!(%warning, snapshot = %image, "unpacked in part");
        let options = ApplyOptions {
            ownership: store.ownership(),
            quota: &reservation,
            ..ApplyOptions::new(&mut warn)
        };
        let reader = Reader::open(store.open_image(image)?).map_err(failed)?;
        let root = make_files(&directory)?;
        apply_image(&root, &reader, unpacked_form(store), options).map_err(failed)?;
        let size_bytes = disk::allocated(&directory)
            .map_err(|error| Error::io("cannot measure an unpacked image", error))?;
        reservation.cover(size_bytes)?;
        let description = format!("image of {image}, unpacked");
        let row = SnapshotRow {
            id: &id,
            form: Form::Flat,
            packing: Packing::Directory,
            parents: std::slice::from_ref(image),
            devices: &[],
            record_type: RecordType::Internal,
            description: &description,
            size_bytes,
        };
        let _publication = store.lock_publication()?;
        std::fs::rename(&directory, store.layout().snapshot(&id))
            .map_err(|error| Error::io("cannot store an unpacked image", error))?;
        store.write(|tx| {
            row.insert(self, tx)?;
            tx.prepare_cached("UPDATE snapshot_parents SET role = ? WHERE child = ?")?
                .execute(params![Role::Layer.as_str(), id])?;
            Ok(())
        })?;
        tracing::debug!(snapshot = %image, "unpacked an image that can't be mounted here");
        Ok(id)
    }
}
