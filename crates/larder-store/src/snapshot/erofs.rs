//! Layers that are EROFS images: how they are made visible, and which are.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_tree::erofs::Files;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

use crate::{Error, Result, SnapshotId, Snapshotter, Store};

/// More mounts than this are not kept for later. A view may need more at a time.
const MAX_KEPT: usize = 128;

/// Mounts images for the store, which mounts nothing by itself: layers may then be EROFS images.
pub trait Mounter: fmt::Debug + Send + Sync {
    /// Returns why images can't be mounted here; `None` if they can.
    fn no_images(&self) -> Option<String>;

    /// Returns whether new layers are to be images, where they can be.
    fn wants_images(&self) -> bool;

    /// Mounts the image in `files`, attached nowhere and read-only; returns the root of it.
    ///
    /// # Errors
    /// What the kernel says.
    fn mount_image(&self, files: &Files) -> io::Result<OwnedFd>;
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
    /// Returns who mounts images, if that can be done here.
    pub(super) fn image_mounter(&self) -> Option<&dyn Mounter> {
        self.mounter()
            .filter(|mounter| mounter.no_images().is_none())
    }

    /// Returns the root of a snapshot's image.
    pub(super) fn image_root(
        &self,
        id: &SnapshotId,
        mounter: &dyn Mounter,
    ) -> Result<Arc<OwnedFd>> {
        if let Some(root) = self.mounts().kept().get(id) {
            return Ok(Arc::clone(root));
        }
        let failed = |error| Error::io(format_args!("cannot mount the image of `{id}`"), error);
        let files = self.open_image(id)?;
        let root = Arc::new(mounter.mount_image(&files).map_err(failed)?);
        let mut kept = self.mounts().kept();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, root| Arc::strong_count(root) > 1);
        }
        Ok(Arc::clone(kept.entry(id.clone()).or_insert(root)))
    }

    /// Opens the files of a snapshot's image. Its extra devices have the names of snapshots.
    pub(crate) fn open_image(&self, id: &SnapshotId) -> Result<Files> {
        let open = |id: &SnapshotId| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::open(self.layout().snapshot(id), flags, Mode::empty());
            Ok(File::from(file?))
        };
        let device = |name: &str| open(&name.parse().map_err(io::Error::other)?);
        let files = open(id).and_then(|own| Files::open(own, device));
        files.map_err(|error| Error::io(format_args!("cannot open the image of `{id}`"), error))
    }

    /// Returns whether new layers may be images, and are wanted to be.
    pub fn makes_images(&self) -> bool {
        self.snapshotter() == Snapshotter::Overlay { userxattr: false }
            && (self.image_mounter()).is_some_and(Mounter::wants_images)
    }
}
