use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, FileType};
use rustix::io::Errno;

use super::directory::{self, Kind};
use super::lower::Layer;

/// What is seen under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The topmost layer that has it.
    pub(crate) layer: usize,
    pub(crate) file_type: FileType,
}

/// Which names the layers of a chain have in the directories that were asked for. It serves the chain's
/// layers up to any height, and grows with it.
#[derive(Debug, Default)]
pub(super) struct Index(HashMap<PathBuf, Listing>);

/// A directory, as all layers have it.
#[derive(Debug, Default)]
struct Listing {
    /// How many layers, from the lowest on, were read.
    read_count: usize,
    /// What the layers have under each name, lowest first.
    names: HashMap<OsString, Vec<Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    layer: usize,
    kind: Kind,
    /// Of a directory, the lowest layer whose entries show in it, as far as its own marks and what
    /// stands in its place in other layers tell.
    floor: usize,
}

/// Which layers show in a directory: from `floor` on; `top` is the topmost that has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    floor: usize,
    pub(super) top: usize,
}

impl Index {
    /// Returns what is seen under `name` in the directory `dir`, if there is such a directory.
    pub(super) fn find(
        &mut self,
        layers: &[Arc<dyn Layer>],
        dir: &Path,
        name: &OsStr,
    ) -> Result<Option<Found>, Errno> {
        let Some(span) = self.span(layers, dir)? else {
            return Ok(None);
        };
        let listing = self.listing(layers, dir)?;
        Ok(listing.seen(name, span, layers.len()).map(Entry::found))
    }

    /// Returns the names that are seen in `dir`, in no order; none if there is no such directory.
    pub(super) fn names(
        &mut self,
        layers: &[Arc<dyn Layer>],
        dir: &Path,
    ) -> Result<Vec<OsString>, Errno> {
        let Some(span) = self.span(layers, dir)? else {
            return Ok(Vec::new());
        };
        let listing = self.listing(layers, dir)?;
        let names = listing.names.keys();
        let seen = names.filter(|name| listing.seen(name, span, layers.len()).is_some());
        Ok(seen.cloned().collect())
    }

    /// Returns which layers show in `dir`; `None` if it is no directory.
    pub(super) fn span(
        &mut self,
        layers: &[Arc<dyn Layer>],
        dir: &Path,
    ) -> Result<Option<Span>, Errno> {
        let Some(top) = layers.len().checked_sub(1) else {
            return Ok(None);
        };
        let mut span = Span { floor: 0, top };
        let mut at = PathBuf::new();
        for name in dir {
            let seen = self.listing(layers, &at)?.seen(name, span, layers.len());
            match seen {
                Some(entry) if entry.found().file_type == FileType::Directory => {
                    span.floor = span.floor.max(entry.floor);
                    span.top = entry.layer;
                }
                _ => return Ok(None),
            }
            at.push(name);
        }
        Ok(Some(span))
    }

    /// Returns the directory `dir` with all that `layers` have in it. The one that it lies in has been
    /// read.
    fn listing(&mut self, layers: &[Arc<dyn Layer>], dir: &Path) -> Result<&Listing, Errno> {
        let known = self.0.get(dir);
        let from = known.map_or(0, |listing| listing.read_count);
        if from < layers.len() {
            let having: Vec<usize> = match (dir.parent(), dir.file_name()) {
                (Some(parent), Some(name)) => {
                    let parent = self.0.get(parent).ok_or(Errno::INVAL)?;
                    let entries = parent.names.get(name).into_iter().flatten();
                    let dirs = entries.filter(|entry| entry.is_dir());
                    let dirs = dirs.map(|entry| entry.layer);
                    dirs.filter(|layer| (from..layers.len()).contains(layer))
                        .collect()
                }
                _ => (from..layers.len()).collect(),
            };
            let mut listing = self.0.remove(dir).unwrap_or_default();
            let read = having
                .into_iter()
                .try_for_each(|layer| listing.read(layer, &*layers[layer], dir));
            // Half a layer's names must not be taken for all.
            read?;
            listing.read_count = layers.len();
            self.0.insert(dir.to_owned(), listing);
        }
        self.0.get(dir).ok_or(Errno::INVAL)
    }
}

impl Listing {
    /// Adds the names that a layer has.
    fn read(&mut self, layer: usize, files: &dyn Layer, dir: &Path) -> Result<(), Errno> {
        directory::list(files, dir, |name, kind| {
            let below = self.names.get(&name).and_then(|all| all.last()).copied();
            let kind = kind(below.is_some())?;
            let floor = match (kind, below) {
                (Kind::Other(FileType::Directory), Some(below)) if below.is_dir() => below.floor,
                _ => layer,
            };
            let entries = self.names.entry(name).or_default();
            entries.push(Entry { layer, kind, floor });
            Ok(())
        })
    }

    /// Returns the entry that is seen under `name` through the lowest `height` layers.
    fn seen(&self, name: &OsStr, span: Span, height: usize) -> Option<Entry> {
        let entries = self.names.get(name)?;
        let count = entries.partition_point(|entry| entry.layer < height);
        let topmost = entries[..count].last()?;
        let shows = topmost.layer >= span.floor && topmost.kind != Kind::Whiteout;
        shows.then_some(*topmost)
    }
}

impl Entry {
    fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Opaque | Kind::Other(FileType::Directory))
    }

    fn found(self) -> Found {
        let file_type = match self.kind {
            Kind::Opaque => FileType::Directory,
            Kind::Whiteout => FileType::CharacterDevice,
            Kind::Other(file_type) => file_type,
        };
        Found {
            layer: self.layer,
            file_type,
        }
    }
}

/// Returns whether what `stat` is about is a whiteout.
pub(super) fn is_whiteout(stat: &fs::Stat) -> bool {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    file_type == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Checks a name as the kernel does.
pub(super) fn check_name(name: &OsStr) -> Result<(), Errno> {
    /// The kernel's limit on a name.
    const MAX_NAME_BYTES: usize = 255;
    if name.as_bytes().len() > MAX_NAME_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    Ok(())
}
