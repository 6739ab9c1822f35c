use std::path::{Path, PathBuf};

use larder_oci::{Layer, Mount, OverlayUpper};
use larder_tree::beneath::Root;
use larder_tree::overlay::{Lower, Marks, Upper};
use larder_tree::quota::Quota;
use rusqlite::{Transaction, params};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use super::chain::{Form, Packing};
use super::flatten::{Files, flatten};
use super::info::RecordType;
use crate::ceiling::Reservation;
use crate::lock::FileLock;
use crate::{Error, Lease, Result, SnapshotId, Snapshotter, disk};

/// What the directories of a writable snapshot take, overlayfs' own included.
const EMPTY_BYTES: u64 = 32 << 10;

/// What a snapshot is made for.
#[derive(Debug, Clone, Copy)]
pub struct NewSnapshot<'a> {
    /// What it builds on; `None` for an empty tree. The lease must hold it.
    pub parent: Option<&'a SnapshotId>,
    /// What makes it, for `du`.
    pub description: &'a str,
    /// What it comes from.
    pub record_type: RecordType,
}

impl Lease {
    /// Starts a writable snapshot.
    ///
    /// # Errors
    /// `NotFound` if the parent does not exist (any more).
    pub fn prepare(&self, new: &NewSnapshot<'_>) -> Result<ActiveSnapshot> {
        let id = SnapshotId::random();
        let lower = new.parent.map(|parent| self.store().lower(parent));
        let copied_bytes = match (self.store().snapshotter(), new.parent) {
            (Snapshotter::Native, Some(parent)) => {
                let copied = self.store().visible(parent)?.into_iter().map(Ok);
                self.store().copies_bytes(copied, Files::Copied)?
            }
            _ => 0,
        };
        let reservation = Reservation::new(self, EMPTY_BYTES + copied_bytes)?;
        let directory = self.tmp()?.join(id.as_str());
        disk::make_private_dir(&directory)?;
        let active = ActiveSnapshot {
            lease: self.clone(),
            id,
            directory,
            parent: new.parent.cloned(),
            lower: lower.transpose()?,
            description: new.description.to_owned(),
            record_type: new.record_type,
            committed: false,
            reservation,
        };
        match self.store().snapshotter() {
            Snapshotter::Overlay { .. } => active.make_upper()?,
            Snapshotter::Native => active.copy_parent()?,
        }
        Ok(active)
    }
}

/// The tree of a writable snapshot.
#[derive(Debug)]
pub enum ActiveTree {
    /// What is changed in the trees beneath.
    Upper(Upper),
    /// A whole tree.
    Whole(Root),
}

/// A writable snapshot. Dropped, it is discarded.
#[derive(Debug)]
pub struct ActiveSnapshot {
    lease: Lease,
    id: SnapshotId,
    directory: PathBuf,
    parent: Option<SnapshotId>,
    /// What the parent shows.
    lower: Option<Lower>,
    description: String,
    record_type: RecordType,
    committed: bool,
    /// Released last, when the files are recorded or gone.
    reservation: Reservation,
}

impl ActiveSnapshot {
    /// Returns the name it will have when committed.
    pub fn id(&self) -> &SnapshotId {
        &self.id
    }

    /// Returns how to see it, writable, for the executor. One mount may be open at a time.
    pub fn mount(&self) -> Result<Mount> {
        let store = self.lease.store();
        let lowers = match (store.snapshotter(), &self.parent) {
            (Snapshotter::Overlay { .. }, Some(parent)) => store.visible(parent)?,
            _ => Vec::new(),
        };
        if !lowers.is_empty() {
            match rustix::fs::mkdir(self.work(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::io("cannot prepare a snapshot", errno)),
            }
        }
        let upper = OverlayUpper {
            upper: self.upper(),
            work: self.work(),
        };
        store.mount(lowers, Some(upper))
    }

    /// Returns how to see it, read-only. It is not to be written to as long as it is mounted so.
    pub fn view(&self) -> Result<Mount> {
        let store = self.lease.store();
        let mut layers = vec![Layer::Directory(self.upper())];
        if let (Snapshotter::Overlay { .. }, Some(parent)) = (store.snapshotter(), &self.parent) {
            layers.extend(store.visible(parent)?);
        }
        store.mount(layers, None)
    }

    /// Returns the tree for this process to write to, without a mount. It must not be mounted meanwhile.
    pub fn tree(&self) -> Result<ActiveTree> {
        let failed = |error| Error::tree("cannot write to a snapshot", error);
        let own = Root::open(&self.upper()).map_err(failed)?;
        let (Snapshotter::Overlay { userxattr }, Some(lower)) =
            (self.lease.store().snapshotter(), &self.lower)
        else {
            return Ok(ActiveTree::Whole(own));
        };
        let marks = if userxattr {
            Marks::User
        } else {
            Marks::Trusted
        };
        let upper = Upper::new(&own, lower.clone(), marks).map_err(failed)?;
        Ok(ActiveTree::Upper(upper))
    }

    /// Returns what bounds who fills the snapshot, if the store has a ceiling.
    pub fn quota(&self) -> &dyn Quota {
        &self.reservation
    }

    pub(crate) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the snapshot immutable and visible to all. It must not be mounted any more.
    ///
    /// Atomic, and not forced to the disk: see [`Store::settle`](crate::Store::settle).
    pub fn commit(self) -> Result<SnapshotId> {
        self.publish(When::Now)
    }

    /// As [`commit`](Self::commit), for who saves it under a key next: other processes see both at once, and
    /// can't remove anything until then. This one sees it at once.
    pub fn commit_soon(self) -> Result<SnapshotId> {
        self.publish(When::Soon)
    }

    fn publish(mut self, when: When) -> Result<SnapshotId> {
        let failed = |error: std::io::Error| Error::io("cannot commit a snapshot", error);
        let store = self.lease.store().clone();
        disk::remove(&self.work())?;
        let size_bytes = disk::allocated(&self.directory).map_err(failed)?;
        self.reservation.cover(size_bytes)?;
        let form = match store.snapshotter() {
            Snapshotter::Overlay { .. } => Form::Directory,
            Snapshotter::Native => Form::Tree,
        };
        let made = Made {
            id: self.id.clone(),
            form,
            packing: Packing::Directory,
            parent: self.parent.clone(),
            devices: Vec::new(),
            record_type: self.record_type,
            description: self.description.clone(),
            size_bytes,
        };
        let publication = store.lock_publication()?;
        std::fs::rename(&self.directory, store.layout().snapshot(&self.id)).map_err(failed)?;
        self.committed = true;
        let reservation = &self.reservation;
        self.lease.publish(made, publication, reservation, when)?;
        if let (Snapshotter::Overlay { .. }, Some(lower)) = (store.snapshotter(), &self.lower) {
            store.raise(lower, self.id.clone(), Packing::Directory);
        }
        Ok(self.id.clone())
    }

    fn upper(&self) -> PathBuf {
        self.directory.join("fs")
    }

    fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// Makes the directory for what is changed. The root of the mounted tree shows the mode and the
    /// owner of the upper directory, so these are the parent's.
    fn make_upper(&self) -> Result<()> {
        let failed = |errno| Error::io("cannot prepare a snapshot", errno);
        let (mode, owner) = match &self.lower {
            None => (Mode::from_raw_mode(0o755), None),
            Some(lower) => {
                let root = lower.root_attributes();
                let root = root.map_err(|error| Error::io("cannot prepare a snapshot", error))?;
                let (mode, uid, gid) = root
                    .ok_or_else(|| Error::invalid("a snapshot without layers can't be built on"))?;
                let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
                (Mode::from_raw_mode(mode), Some(owner))
            }
        };
        let upper = self.upper();
        rustix::fs::mkdir(&upper, mode).map_err(failed)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::chown(&upper, Some(uid), Some(gid)).map_err(failed)?;
        }
        rustix::fs::chmod(&upper, mode).map_err(failed)
    }

    /// Makes a copy of the parent's tree.
    fn copy_parent(&self) -> Result<()> {
        let Some(parent) = &self.parent else {
            return self.make_upper();
        };
        let layers = self.lease.store().visible(parent)?;
        let lowest_first = layers.into_iter().rev().map(Ok);
        flatten(lowest_first, &self.upper(), Files::Copied).map(drop)
    }
}

impl Drop for ActiveSnapshot {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = disk::remove(&self.directory) {
            tracing::warn!(%error, snapshot = %self.id, "a discarded snapshot is left for the next prune");
        }
    }
}

/// When a snapshot becomes known to other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Now,
    /// With the next transaction of this one.
    Soon,
}

/// What was made upon one other, or none, and has its files in their place.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: SnapshotId,
    pub(super) form: Form,
    pub(super) packing: Packing,
    pub(super) parent: Option<SnapshotId>,
    /// The snapshots whose images it uses blocks of.
    pub(super) devices: Vec<SnapshotId>,
    pub(super) record_type: RecordType,
    pub(super) description: String,
    pub(super) size_bytes: u64,
}

impl Made {
    fn row(&self) -> SnapshotRow<'_> {
        SnapshotRow {
            id: &self.id,
            form: self.form,
            packing: self.packing,
            parents: self.parent.as_slice(),
            devices: &self.devices,
            record_type: self.record_type,
            description: &self.description,
            size_bytes: self.size_bytes,
        }
    }
}

impl Lease {
    /// Makes a snapshot known; `publication` and what was taken of `reservation` are held until it is.
    pub(super) fn publish(
        &self,
        made: Made,
        publication: FileLock,
        reservation: &Reservation,
        when: When,
    ) -> Result<()> {
        let store = self.store();
        if when == When::Now {
            return store.write(|tx| made.row().insert(self, tx));
        }
        self.protect(std::slice::from_ref(&made.id), &[])?;
        let (now, boot) = (store.now(), store.boot().to_owned());
        // Let go in this order: who gives back takes locks that come before that of publication.
        let guard = (publication, reservation.hand_over());
        store.write_soon(move |tx| made.row().add(tx, now, &boot), guard);
        store.settle_soon();
        Ok(())
    }
}

/// A snapshot about to be known.
#[derive(Debug)]
pub(super) struct SnapshotRow<'a> {
    pub(super) id: &'a SnapshotId,
    pub(super) form: Form,
    pub(super) packing: Packing,
    pub(super) parents: &'a [SnapshotId],
    pub(super) devices: &'a [SnapshotId],
    pub(super) record_type: RecordType,
    pub(super) description: &'a str,
    pub(super) size_bytes: u64,
}

impl SnapshotRow<'_> {
    /// Inserts the row, held by `lease`.
    pub(super) fn insert(&self, lease: &Lease, tx: &Transaction<'_>) -> Result<()> {
        let store = lease.store();
        self.add(tx, store.now(), store.boot())?;
        store.settle_soon();
        lease.protect(std::slice::from_ref(self.id), &[])
    }

    fn add(&self, tx: &Transaction<'_>, now: i64, boot: &str) -> Result<()> {
        tx.prepare_cached(
            "INSERT INTO snapshots \
               (id, form, packing, record_type, description, size_bytes, created_at, unsettled) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            self.id,
            self.form.as_str(),
            self.packing.as_str(),
            self.record_type.as_str(),
            self.description,
            self.size_bytes as i64,
            now,
            boot,
        ])?;
        for parent in self.parents.iter().chain(self.devices) {
            let exists = "SELECT 1 FROM snapshots WHERE id = ?";
            if !tx.prepare_cached(exists)?.exists([parent])? {
                return Err(super::info::missing(parent));
            }
        }
        for (position, parent) in self.parents.iter().enumerate() {
            tx.prepare_cached(
                "INSERT INTO snapshot_parents (child, position, parent) VALUES (?, ?, ?)",
            )?
            .execute(params![self.id, position as i64, parent])?;
        }
        for device in self.devices {
            let sql = "INSERT INTO snapshot_devices (snapshot, device) VALUES (?, ?)";
            tx.prepare_cached(sql)?.execute(params![self.id, device])?;
        }
        Ok(())
    }
}
