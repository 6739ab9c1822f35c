use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::Timespec;
use rustix::io::Errno;

use super::copied::Copied;
use super::directories;
use super::format::{BLOCK_BYTES, Time};
use super::lower::{self, Lower};
use super::tree::{Attributes, DirId, Tree};
use super::writer::Writer;
use crate::beneath::failed;
use crate::{Error, Result, overlay};

/// An EROFS image in the making. One operation at a time may write to it.
#[derive(Debug)]
pub struct Image {
    parts: Arc<Mutex<Parts>>,
    /// The directory that paths begin at.
    pub(super) root: DirId,
}

/// What an image is made of until it is finished.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tree: Tree,
    pub(super) writer: Writer,
    /// Whether a file is being written, whose blocks must follow each other.
    pub(super) has_open_file: bool,
    /// What files were copied from.
    pub(super) copied: Copied,
}

/// What [`Image::finish`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image: a multiple of 4096. Holes of its files are holes of the image too, so
    /// that it may take less on the disk.
    pub size_bytes: u64,
    /// Files, directories, links and marks.
    pub inode_count: u64,
    /// The names of its extra devices: images that must be there as long as this one is.
    pub devices: Vec<String>,
}

impl Image {
    /// Begins an image of a layer of its own in `file`, which is empty, and open for reading and
    /// writing. Names are looked up in the image alone. Its root belongs to root, with mode 0755
    /// and time 0.
    pub fn new(file: File) -> Self {
        Self::made_at(file, Timespec::default())
    }

    /// As [`Image::new`], with `now` as the time of the root and of what is given none.
    pub fn made_at(file: File, now: Timespec) -> Self {
        let root = Attributes {
            mode: 0o755,
            time: time(now),
            ..Attributes::default()
        };
        Self::begin(file, Tree::new(root, defaults(time(now)), None))
    }

    /// Begins an image of what is changed in the tree `lower`, which the layers beneath show. Names
    /// are looked up as in an overlay of both; what is changed takes its attributes from `lower`, and
    /// what is removed gets whiteouts. `now` is the time of what is given none.
    ///
    /// # Errors
    /// Those of reading the attributes of the root of `lower`.
    pub fn upon(file: File, lower: overlay::Lower, now: Timespec) -> Result<Self> {
        let lower = Lower::new(lower);
        let path = Path::new("");
        let root = lower.attributes(path);
        let root = root.map_err(|errno| failed("read", path, errno))?;
        let tree = Tree::new(root, defaults(time(now)), Some(lower));
        Ok(Self::begin(file, tree))
    }

    fn begin(file: File, tree: Tree) -> Self {
        Self {
            parts: Arc::new(Mutex::new(Parts {
                tree,
                writer: Writer::new(file),
                has_open_file: false,
                copied: Copied::default(),
            })),
            root: Tree::ROOT,
        }
    }

    /// Returns the same image, seen from another directory.
    pub(super) fn seen_from(&self, root: DirId) -> Self {
        Self {
            parts: Arc::clone(&self.parts),
            root,
        }
    }

    /// Gives the directories at `paths` the attributes that they have in `lower`, where they are
    /// directories too. Only those given are changed, not those that lead to them; the empty path
    /// is the root.
    ///
    /// # Errors
    /// Those of reading `lower`.
    pub fn inherit(&self, paths: &[PathBuf], lower: &overlay::Lower) -> Result<()> {
        let mut parts = self.parts();
        for path in paths {
            let mut inherit = || {
                // Something may have taken its place.
                let Ok(dir) = parts.tree.open_dir(Tree::ROOT, path) else {
                    return Ok(());
                };
                if let Some(attributes) = lower::attributes(lower, path)? {
                    let own = parts.tree.dir_attributes(dir)?;
                    let marks = std::mem::take(&mut own.xattrs);
                    *own = attributes;
                    own.xattrs.extend(marks);
                }
                Ok(())
            };
            inherit().map_err(|errno| failed("take over the attributes of", path, errno))?;
        }
        Ok(())
    }

    /// Takes away the whiteouts at `paths` that hide nothing of `lower`. What is no whiteout (any
    /// more) stays.
    ///
    /// # Errors
    /// Those of reading `lower`.
    pub fn drop_whiteouts(&self, paths: &[PathBuf], lower: &overlay::Lower) -> Result<()> {
        let mut parts = self.parts();
        for path in paths {
            let hides = lower::has(lower, path);
            if hides.map_err(|errno| failed("look up", path, errno))? {
                continue;
            }
            if let Some((dir, name)) = parts.tree.own(path) {
                parts.tree.drop_whiteout(dir, name);
            }
        }
        Ok(())
    }

    /// Returns whether `path` may lead to something else than it does in the tree beneath, because
    /// of what the image holds. True where there is no such tree.
    pub fn touches(&self, path: impl AsRef<Path>) -> bool {
        let shows = self.parts().tree.shows_beneath(path.as_ref());
        !shows.is_ok_and(|shows| shows)
    }

    /// Writes what is left: directories, and last the superblock, without which there is no image.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(self) -> Result<Summary> {
        let parts = Arc::into_inner(self.parts);
        let finished = match parts.map(Mutex::into_inner) {
            Some(parts) => parts.unwrap_or_else(PoisonError::into_inner).finish(),
            // No operation keeps a second handle when it is over.
            None => Err(Errno::BUSY.into()),
        };
        finished.map_err(|error| Error::io("cannot write the image of a layer", error))
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, Parts> {
        // What is in it is whole between any two calls.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    fn finish(self) -> io::Result<Summary> {
        let Self {
            tree,
            mut writer,
            copied,
            ..
        } = self;
        let root = directories::write(&tree, &mut writer)?;
        let mut dead_count = 0;
        for (inode, link_count) in tree.link_counts() {
            if link_count == 0 {
                dead_count += 1;
            } else {
                writer.set_link_count(inode, link_count)?;
            }
        }
        let record = copied.encode(|path, inode| {
            (tree.file_at(path) == Some(inode)).then(|| writer.number(inode))
        });
        let devices = writer.device_names();
        let (block_count, inode_count) = writer.finish(&root, dead_count, &record)?;
        let blocks_bytes = u64::from(block_count) * BLOCK_BYTES as u64;
        Ok(Summary {
            size_bytes: blocks_bytes + record.len() as u64,
            inode_count,
            devices,
        })
    }
}

/// Returns what is given to what is made: the process as owner, as in a directory.
fn defaults(now: Time) -> Attributes {
    Attributes {
        owner: (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
        time: now,
        ..Attributes::default()
    }
}

/// Returns a time as the image holds it.
pub(super) fn time(time: Timespec) -> Time {
    Time {
        seconds: time.tv_sec,
        nanos: time.tv_nsec.clamp(0, 999_999_999) as u32,
    }
}
