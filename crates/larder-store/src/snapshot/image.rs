//! A snapshot that is written as an image, and seen by nobody before.

use std::fs::File;
use std::path::{Path, PathBuf};

use larder_tree::erofs::{Image, Past};
use larder_tree::quota::Quota;
use rusqlite::OptionalExtension as _;
use rustix::fs::{Mode, OFlags, Timespec};

use super::active::{Made, NewSnapshot, When};
use super::chain::{Form, Packing};
use crate::ceiling::Reservation;
use crate::{Error, KeyId, Lease, RecordType, Result, SnapshotId, disk};

/// What an image of nothing takes.
const EMPTY_BYTES: u64 = 8 << 10;
const NANOS: i64 = 1_000_000_000;

impl Lease {
    /// Starts a snapshot for who makes it by himself, entry by entry: what he writes upon the parent goes into an
    /// image. `None` in a store that doesn't [make](crate::Store::makes_images) images.
    ///
    /// # Errors
    /// `NotFound` if the parent does not exist (any more).
    pub fn prepare_image(&self, new: &NewSnapshot<'_>) -> Result<Option<ActiveImage>> {
        let store = self.store();
        if !store.makes_images() {
            return Ok(None);
        }
        let failed = |error| Error::tree("cannot prepare a snapshot", error);
        let id = SnapshotId::random();
        let reservation = Reservation::new(self, EMPTY_BYTES)?;
        let path = self.tmp()?.join(id.as_str());
        let file = create(&path)?;
        let nanos = store.now();
        let now = Timespec {
            tv_sec: nanos.div_euclid(NANOS),
            tv_nsec: nanos.rem_euclid(NANOS) as _,
        };
        let image = match new.parent {
            Some(parent) => Image::upon(file, store.lower(parent)?, now).map_err(failed)?,
            None => Image::made_at(file, now),
        };
        Ok(Some(ActiveImage {
            lease: self.clone(),
            id,
            path,
            image: Some(image),
            parent: new.parent.cloned(),
            description: new.description.to_owned(),
            record_type: new.record_type,
            committed: false,
            reservation,
        }))
    }
}

impl Lease {
    /// Opens the image that the result of `key` lies in, for what is in it to be taken over, and protects it: an image
    /// that is [made](Self::prepare_image) for the lease may use its blocks. `None` where there is no result (any more), or
    /// no image that tells what its files were copied from.
    pub fn past(&self, key: KeyId) -> Result<Option<Past>> {
        let _no_removals = self.store().lock_publication()?;
        let found = self.store().read(|db| {
            let mut find = db.prepare_cached(
                "SELECT id, packing FROM results JOIN snapshots ON id = snapshot WHERE key = ?",
            )?;
            let found = find.query_row([key], |row| Ok((row.get(0)?, row.get(1)?)));
            Ok(found.optional()?)
        })?;
        let Some((id, Packing::Erofs)) = found else {
            return Ok(None);
        };
        let files = self.store().open_image(&id)?;
        let past = Past::open(files).map(|past| past.shared_as(id.as_str()));
        if past.is_some() {
            self.protect(std::slice::from_ref(&id), &[])?;
        }
        Ok(past)
    }
}

/// A snapshot that is being written as an image. Dropped, it is discarded.
#[derive(Debug)]
pub struct ActiveImage {
    lease: Lease,
    id: SnapshotId,
    path: PathBuf,
    /// Until it is finished.
    image: Option<Image>,
    parent: Option<SnapshotId>,
    description: String,
    record_type: RecordType,
    committed: bool,
    /// Released last, when the file is recorded or gone.
    reservation: Reservation,
}

impl ActiveImage {
    /// Returns what takes the entries.
    pub fn tree(&self) -> &Image {
        self.image
            .as_ref()
            .expect("it is finished by a commit, which consumes this")
    }

    /// Returns what bounds who writes it, if the store has a ceiling.
    pub fn quota(&self) -> &dyn Quota {
        &self.reservation
    }

    /// Makes the snapshot immutable and visible to all. Atomic, and not forced to the disk: see
    /// [`Store::settle`](crate::Store::settle).
    pub fn commit(self) -> Result<SnapshotId> {
        self.publish(When::Now)
    }

    /// As [`ActiveSnapshot::commit_soon`](crate::ActiveSnapshot::commit_soon).
    pub fn commit_soon(self) -> Result<SnapshotId> {
        self.publish(When::Soon)
    }

    fn publish(mut self, when: When) -> Result<SnapshotId> {
        let failed = |error: std::io::Error| Error::io("cannot commit a snapshot", error);
        let store = self.lease.store().clone();
        let finished = self.image.take().map(Image::finish).transpose();
        let finished = finished.map_err(|error| Error::tree("cannot commit a snapshot", error))?;
        let devices = finished.map(|image| image.devices).unwrap_or_default();
        let devices = devices.iter().map(|name| name.parse());
        let devices = devices.collect::<Result<_>>()?;
        let size_bytes = disk::allocated_entry(&self.path).map_err(failed)?;
        self.reservation.cover(size_bytes)?;
        let made = Made {
            id: self.id.clone(),
            form: Form::Directory,
            packing: Packing::Erofs,
            parent: self.parent.clone(),
            devices,
            record_type: self.record_type,
            description: self.description.clone(),
            size_bytes,
        };
        let publication = store.lock_publication()?;
        std::fs::rename(&self.path, store.layout().snapshot(&self.id)).map_err(failed)?;
        self.committed = true;
        let reservation = &self.reservation;
        self.lease.publish(made, publication, reservation, when)?;
        Ok(self.id.clone())
    }
}

impl Drop for ActiveImage {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = disk::remove(&self.path) {
            tracing::warn!(%error, snapshot = %self.id, "a discarded snapshot is left for the next prune");
        }
    }
}

/// Makes the file of an image, for its owner alone.
pub(super) fn create(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
    let file = file.map_err(|errno| Error::io("cannot make an image", errno))?;
    Ok(File::from(file))
}
