use std::fs::File;
use std::path::PathBuf;

use rustix::fs::Timespec;

use crate::beneath::Root;
use crate::{Error, ErrorKind, Result};

/// An EROFS image in the making. One operation at a time may write to it.
#[derive(Debug)]
pub struct Image {
    file: File,
}

/// What [`Image::finish`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image: a multiple of 4096. Holes of its files are holes of the image too, so
    /// that it may take less on the disk.
    pub size_bytes: u64,
    /// Files, directories, links and marks.
    pub inode_count: u64,
}

impl Image {
    /// Begins an image of a layer of its own in `file`, which is empty, and open for reading and
    /// writing. Names are looked up in the image alone. Its root belongs to root, with mode 0755
    /// and time 0.
    pub fn new(file: File) -> Self {
        Self { file }
    }

    /// Begins an image of what is changed in the tree `lower`, the merged view of the layers
    /// beneath. Names are looked up as in an overlay of both; what is changed takes its attributes
    /// from `lower`, and what is removed gets whiteouts. `now` is the time of what is given none.
    ///
    /// # Errors
    /// Those of reading the attributes of the root of `lower`.
    pub fn upon(file: File, lower: Root, now: Timespec) -> Result<Self> {
        let _ = (lower, now);
        Ok(Self { file })
    }

    /// Gives the directories at `paths` the attributes that they have in `lower`, where they are
    /// directories too. Parents may not be named: only those given are changed; the empty path is
    /// the root.
    ///
    /// # Errors
    /// `NotFound` for a directory that the image hasn't; those of reading `lower`.
    pub fn inherit(&self, paths: &[PathBuf], lower: &Root) -> Result<()> {
        let _ = (paths, lower);
        Err(not_built())
    }

    /// Takes away the whiteouts at `paths` that hide nothing of `lower`. What is no whiteout (any
    /// more) stays.
    ///
    /// # Errors
    /// Those of reading `lower`.
    pub fn drop_whiteouts(&self, paths: &[PathBuf], lower: &Root) -> Result<()> {
        let _ = (paths, lower);
        Err(not_built())
    }

    /// Returns whether the image itself has, or hides, something at `path`, to be looked up there
    /// and not in what lies beneath. Symlinks are not followed.
    pub fn touches(&self, path: &std::path::Path) -> bool {
        let _ = path;
        true
    }

    /// Writes what is left: directories, and last the superblock, without which there is no image.
    ///
    /// # Errors
    /// Those of writing, of now or before.
    pub fn finish(self) -> Result<Summary> {
        drop(self.file);
        Err(not_built())
    }
}

fn not_built() -> Error {
    Error::new(ErrorKind::Unsupported, "EROFS images are not built yet")
}
