//! Layers that are EROFS images: how they are made visible, and which are.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_oci::Mount;
use larder_tree::beneath::Root;
use rusqlite::Connection;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

use crate::{Error, ErrorKind, Result, SnapshotId, Snapshotter, Store};

/// More mounts than this are not kept for later. A view may need more at a time.
const MAX_KEPT: usize = 128;

/// Mounts what the store needs to see, which mounts nothing by itself: layers may then be EROFS images.
pub trait Mounter: fmt::Debug + Send + Sync {
    /// Returns why images can't be mounted here; `None` if they can.
    fn no_images(&self) -> Option<String>;

    /// Returns whether new layers are to be images, where they can be.
    fn wants_images(&self) -> bool;

    /// Mounts the image in `file`, attached nowhere and read-only; returns the root of it.
    ///
    /// # Errors
    /// What the kernel says.
    fn mount_image(&self, file: &File) -> io::Result<OwnedFd>;

    /// Mounts a view, attached nowhere; returns the root of it.
    ///
    /// # Errors
    /// What the kernel says.
    fn mount_view(&self, view: &Mount) -> io::Result<OwnedFd>;
}

/// The images that this process has mounted: those in use, and some that were.
#[derive(Debug, Default)]
pub(crate) struct Mounts(Mutex<HashMap<SnapshotId, Arc<OwnedFd>>>);

impl Mounts {
    fn kept(&self) -> MutexGuard<'_, HashMap<SnapshotId, Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts what nobody uses any more, so that removed images give their room back.
    pub(crate) fn drop_idle(&self) {
        self.kept().retain(|_, root| Arc::strong_count(root) > 1);
    }
}

impl Store {
    /// Returns the root of a snapshot's image.
    pub(super) fn image_root(&self, id: &SnapshotId) -> Result<Arc<OwnedFd>> {
        if let Some(root) = self.mounts().kept().get(id) {
            return Ok(Arc::clone(root));
        }
        let mounter = self.mounter().ok_or_else(|| unreadable(id, None))?;
        if let Some(reason) = mounter.no_images() {
            return Err(unreadable(id, Some(&reason)));
        }
        let failed = |error| Error::io(format_args!("cannot mount the image of `{id}`"), error);
        let file = self.open_image(id)?;
        let root = Arc::new(mounter.mount_image(&file).map_err(failed)?);
        let mut kept = self.mounts().kept();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, root| Arc::strong_count(root) > 1);
        }
        Ok(Arc::clone(kept.entry(id.clone()).or_insert(root)))
    }

    /// Opens the file of a snapshot's image.
    pub(super) fn open_image(&self, id: &SnapshotId) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.layout().snapshot(id), flags, Mode::empty());
        let failed = |errno| Error::io(format_args!("cannot open the image of `{id}`"), errno);
        file.map(File::from).map_err(failed)
    }

    /// Returns whether new layers may be images, and are wanted to be.
    pub fn makes_images(&self) -> bool {
        self.snapshotter() == Snapshotter::Overlay { userxattr: false }
            && (self.mounter())
                .is_some_and(|mounter| mounter.wants_images() && mounter.no_images().is_none())
    }

    /// Opens the tree that a new layer upon `parent` will lie upon.
    pub(super) fn open_below(&self, parent: &SnapshotId) -> Result<Root> {
        let view = self.view(parent)?;
        let failed = |error| Error::io(format_args!("cannot mount snapshot `{parent}`"), error);
        let mounter = self.mounter().ok_or_else(|| unreadable(parent, None))?;
        Ok(Root::from_fd(mounter.mount_view(&view).map_err(failed)?))
    }

    /// Returns whether the files of `id` can be seen by this process: not if some are in images, and it can't
    /// mount any.
    pub(crate) fn is_visible(&self, db: &Connection, id: &SnapshotId) -> Result<bool> {
        if (self.mounter()).is_some_and(|mounter| mounter.no_images().is_none()) {
            return Ok(true);
        }
        self.is_in_directories(db, id)
    }

    /// Returns whether the files of `id` can be seen here: not if some are in EROFS images, and none can be
    /// mounted. Look-ups find nothing that can't be.
    ///
    /// # Errors
    /// `NotFound` if it does not exist (any more).
    pub fn can_show(&self, id: &SnapshotId) -> Result<bool> {
        self.read(|db| self.is_visible(db, id))
    }
}

fn unreadable(id: &SnapshotId, reason: Option<&str>) -> Error {
    let reason = reason.unwrap_or("this program mounts none");
    Error::new(
        ErrorKind::Denied,
        format_args!("snapshot `{id}` is an EROFS image, which can't be mounted here: {reason}"),
    )
}
