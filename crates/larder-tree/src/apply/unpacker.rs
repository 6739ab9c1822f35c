use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use larder_oci::{Digest, Sha256};
use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;

use super::name;
use super::options::{ApplyOptions, ApplyStats, LayerForm, UnpackStats};
use crate::compression::Decoder;
use crate::quota;
use crate::sink::Sink;
use crate::sink::operations::Place;
use crate::tar::Reader;
use crate::{Error, ErrorKind, Result};

/// How much of the uncompressed archive is read at once.
const READ_BYTES: usize = 256 << 10;

/// Makes the layer in `stream`, compressed or not, into `form` beneath `root`: a directory, by its
/// [`Root`](crate::beneath::Root), or an [`Image`](crate::erofs::Image).
///
/// What an error leaves behind is for the caller to remove. Nothing is synced to disk.
///
/// # Errors
/// `Escape` for an entry that leaves the root, which the error names; `InvalidInput` for a
/// malformed archive or compressed stream; `LimitExceeded` beyond
/// [`max_bytes`](ApplyOptions::max_bytes).
pub fn apply_layer<'a>(
    root: &'a impl Sink,
    stream: impl Read,
    form: LayerForm,
    options: ApplyOptions<'a>,
) -> Result<ApplyStats> {
    let stream = Decoder::new(stream)?.with_limit(options.max_bytes);
    let mut stream = BufReader::with_capacity(READ_BYTES, Hashing::new(stream));
    let mut unpacker = Unpacker::new(root, Some(form), options);
    let entries = unpacker.run(&mut stream)?;
    drain(&mut stream)?;
    let (diff_id, size_bytes) = stream.into_inner().finish();
    Ok(ApplyStats {
        diff_id,
        size_bytes,
        entries,
        implied_dirs: unpacker.implied_dirs,
        whiteouts: unpacker.whiteouts,
    })
}

/// Unpacks the archive in `stream`, compressed or not, beneath `root`, upon what is there.
/// Whiteouts mean nothing here: they are files.
///
/// # Errors
/// As [`apply_layer`].
pub fn unpack<'a>(
    root: &'a impl Sink,
    stream: impl Read,
    options: ApplyOptions<'a>,
) -> Result<UnpackStats> {
    let stream = Decoder::new(stream)?.with_limit(options.max_bytes);
    let mut stream = BufReader::with_capacity(READ_BYTES, Counting { stream, length: 0 });
    let mut unpacker = Unpacker::new(root, None, options);
    let entries = unpacker.run(&mut stream)?;
    drain(&mut stream)?;
    Ok(UnpackStats {
        size_bytes: stream.get_ref().length,
        entries,
    })
}

/// Returns whether `stream` is an archive that [`unpack`] could unpack, by its first entry. An
/// empty archive counts as none.
///
/// # Errors
/// Those of reading the stream; never for what it holds.
pub fn is_archive(stream: impl Read) -> Result<bool> {
    let first = Decoder::new(stream).and_then(|stream| Reader::new(stream).next_entry());
    match first {
        Ok(header) => Ok(header.is_some()),
        Err(error) if error.kind() == ErrorKind::Io => Err(error),
        Err(_) => Ok(false),
    }
}

/// The state of unpacking one archive.
pub(super) struct Unpacker<'a, S: Sink> {
    pub(super) sink: &'a S,
    /// What to make of whiteouts; with none they are plain files.
    pub(super) form: Option<LayerForm>,
    pub(super) options: ApplyOptions<'a>,
    /// The directory that entries went to last, which most often is the next one's too.
    parent: Option<Parent<S::Dir>>,
    /// What directories get when all entries are in place, by their real paths.
    dirs: BTreeMap<PathBuf, DirEnd>,
    /// Real paths of what the layer brought, with the directories above. Only for a plain tree.
    pub(super) placed: HashSet<PathBuf>,
    /// Real paths of the symlinks that the layer brought, also of those that are gone.
    pub(super) symlinks: HashSet<PathBuf>,
    implied_dirs: Vec<PathBuf>,
    pub(super) whiteouts: Vec<PathBuf>,
    pub(super) buffer: Vec<u8>,
}

/// A directory held open.
#[derive(Clone)]
pub(super) struct Parent<D> {
    path: PathBuf,
    pub(super) dir: D,
    /// The path with symlinks resolved.
    pub(super) real: PathBuf,
}

impl<D: Clone> Parent<D> {
    /// Returns the same with another directory's handle.
    pub(super) fn with_dir(&self, dir: D) -> Self {
        Self {
            dir,
            ..self.clone()
        }
    }
}

/// What is left to be done to a directory.
pub(super) struct DirEnd {
    pub(super) mtime: Timespec,
    /// The mode, where it would have kept us from making entries.
    pub(super) mode: Option<u32>,
}

impl<'a, S: Sink> Unpacker<'a, S> {
    pub(super) fn new(sink: &'a S, form: Option<LayerForm>, options: ApplyOptions<'a>) -> Self {
        Self {
            sink,
            form,
            options,
            parent: None,
            dirs: BTreeMap::new(),
            placed: HashSet::new(),
            symlinks: HashSet::new(),
            implied_dirs: Vec::new(),
            whiteouts: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Unpacks all entries; returns their number.
    fn run(&mut self, stream: impl Read) -> Result<u64> {
        let mut archive = Reader::new(stream);
        let mut entries = 0;
        while let Some(header) = archive.next_entry()? {
            entries += 1;
            let path = name::clean(&header.path)?;
            if path.as_os_str().is_empty() {
                continue;
            }
            if !self.whiteout(&path)? {
                self.place(&path, &header, &mut archive)?;
            }
        }
        self.finish_dirs()?;
        Ok(entries)
    }

    /// Returns the directory that `path` lies in, made if it is missing.
    pub(super) fn parent_of(&mut self, path: &Path) -> Result<Parent<S::Dir>> {
        match self.existing_parent_of(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(Path::new(""));
                let made = self.create_implied(dir)?;
                self.enter(dir, made)
            }
            Err(error) => Err(error.within(unpack_text(path))),
            Ok(parent) => Ok(parent),
        }
    }

    fn existing_parent_of(&mut self, path: &Path) -> Result<Parent<S::Dir>> {
        let dir = path.parent().unwrap_or(Path::new(""));
        if let Some(parent) = &self.parent
            && parent.path == dir
        {
            return Ok(parent.clone());
        }
        let opened = self.sink.open_dir(dir)?;
        self.enter(dir, opened)
    }

    /// Keeps a directory open for the entries to come.
    pub(super) fn enter(&mut self, path: &Path, dir: S::Dir) -> Result<Parent<S::Dir>> {
        let parent = Parent {
            path: path.to_owned(),
            dir,
            real: self.real(path)?,
        };
        self.parent = Some(parent.clone());
        Ok(parent)
    }

    /// Takes note that the directory or symlink at the real path `path` was removed: what was held
    /// open may be gone, or names may lead elsewhere.
    pub(super) fn forget(&mut self, path: &Path) {
        self.forget_if(path, |_| true);
    }

    /// Takes note that what the layer didn't bring was removed at and beneath a real path.
    pub(super) fn forget_unplaced(&mut self, path: &Path) {
        let placed = std::mem::take(&mut self.placed);
        self.forget_if(path, |dir| !placed.contains(dir));
        self.placed = placed;
    }

    fn forget_if(&mut self, path: &Path, is_gone: impl Fn(&Path) -> bool) {
        self.parent = None;
        let beneath = self.dirs.range(path.to_owned()..).map(|(dir, _)| dir);
        let beneath = beneath.take_while(|dir| dir.starts_with(path));
        let gone: Vec<_> = beneath.filter(|dir| is_gone(dir)).cloned().collect();
        for dir in gone {
            self.dirs.remove(&dir);
        }
    }

    /// Returns the path of a directory with the symlinks in it resolved.
    fn real(&self, dir: &Path) -> Result<PathBuf> {
        // An overlay's directory begins empty: all symlinks in it are the layer's.
        let is_overlay = matches!(self.form, Some(LayerForm::Overlay | LayerForm::OverlayUser));
        if is_overlay && !dir.ancestors().any(|above| self.symlinks.contains(above)) {
            return Ok(dir.to_owned());
        }
        self.sink.resolve(dir)
    }

    /// Gives a directory the rest of its attributes at the end; `path` is its real one.
    pub(super) fn finish_dir_later(&mut self, path: &Path, end: DirEnd) {
        self.dirs.insert(path.to_owned(), end);
    }

    /// Takes what is about to be written.
    pub(super) fn take(&self, path: &Path, bytes: u64) -> Result<()> {
        let taken = self.options.quota.take(bytes);
        taken.map_err(|error| Error::io(unpack_text(path), error))
    }

    fn create_implied(&mut self, dir: &Path) -> Result<S::Dir> {
        self.take(dir, quota::directories_bytes(dir))?;
        let mut attributes = self.options.implied;
        attributes.owner = self.owner(attributes.owner);
        let (made, created) = self.sink.create_dir_all(dir, attributes)?;
        for path in created {
            if let Some(mtime) = attributes.time {
                self.finish_dir_later(&path, DirEnd { mtime, mode: None });
            }
            self.copy_lower_attributes(&path)?;
            self.implied_dirs.push(path);
        }
        Ok(made)
    }

    /// Gives each directory its time, which making entries changed, and its mode.
    pub(super) fn finish_dirs(&mut self) -> Result<()> {
        let dirs = std::mem::take(&mut self.dirs);
        // Children first, while their parents can still be entered.
        for (path, end) in dirs.into_iter().rev() {
            let name = path.file_name().unwrap_or_default();
            let parent = match self.existing_parent_of(&path) {
                Ok(parent) => parent,
                // Something took its place, by another name of the directory above.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let finish = || {
                if self.sink.type_of(&parent.dir, name)? != FileType::Directory {
                    return Ok(());
                }
                if let Some(mode) = end.mode {
                    self.sink.set_mode(Place::Entry(&parent.dir, name), mode)?;
                }
                self.sink
                    .set_time(Place::Entry(&parent.dir, name), end.mtime)
            };
            match finish() {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(&path, errno)),
            }
        }
        Ok(())
    }
}

pub(super) fn failed(path: &Path, errno: Errno) -> Error {
    Error::io(unpack_text(path), errno)
}

pub(super) fn unpack_text(path: &Path) -> String {
    format!("cannot unpack `{}`", path.display())
}

/// Reads what follows the end of the archive, which belongs to the layer's digest.
fn drain(stream: &mut impl Read) -> Result<()> {
    io::copy(stream, &mut io::sink())
        .map(|_| ())
        .map_err(|error| Error::io("cannot read the archive", error))
}

struct Hashing<R> {
    stream: R,
    hasher: Sha256,
    length: u64,
}

impl<R> Hashing<R> {
    fn new(stream: R) -> Self {
        Self {
            stream,
            hasher: Sha256::new(),
            length: 0,
        }
    }

    fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.length)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

struct Counting<R> {
    stream: R,
    length: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.length += count as u64;
        Ok(count)
    }
}
