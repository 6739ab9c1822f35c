//! One directory that shows what several layers show when stacked.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use larder_oci::Layer;
use larder_tree::beneath::Root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::{Error, Result, Store, disk};

/// How deep directories may be nested: each level holds two of them open.
const MAX_DEPTH: usize = 400;
/// The longest value of an extended attribute that Linux allows.
const MAX_XATTR_BYTES: usize = 1 << 16;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What becomes of the layers' files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// New names of the same files, where they lie in directories: for a tree that is never written.
    Linked,
    /// Copies, sharing blocks where the filesystem can.
    Copied,
}

impl Store {
    /// Returns what `files` of all `layers` take at most; 0 in a store where that doesn't matter.
    pub(super) fn copies_bytes(
        &self,
        layers: impl IntoIterator<Item = Result<Layer>>,
        files: Files,
    ) -> Result<u64> {
        if self.ceiling().is_none() {
            return Ok(0);
        }
        let failed = |error| Error::io("cannot measure layers", error);
        let size = |layer: Result<Layer>| match (layer?, files) {
            (Layer::Directory(path), Files::Linked) => {
                disk::allocated_directories(&path).map_err(failed)
            }
            (layer, _) => open(&layer)
                .and_then(|root| disk::allocated_beneath(&root))
                .map_err(failed),
        };
        layers.into_iter().map(size).sum()
    }
}

/// Makes the directory `target`, with the tree that `layers` (lowest first) show together. Returns the
/// allocated bytes of files that were copied. One layer is looked at after the other.
///
/// # Errors
/// `Invalid` for directories nested beyond 400 levels.
pub(super) fn flatten(
    layers: impl IntoIterator<Item = Result<Layer>>,
    target: &Path,
    files: Files,
) -> Result<u64> {
    let failed = |error: io::Error| Error::io("cannot flatten layers", error);
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdir(target, mode)
        .and_then(|()| rustix::fs::chmod(target, mode))
        .map_err(|errno| failed(errno.into()))?;
    let mut flattener = Flattener {
        files,
        root: open_dir(CWD, target).map_err(failed)?,
        path: PathBuf::new(),
        links: HashMap::new(),
        copied_bytes: 0,
    };
    for layer in layers {
        flattener.links.clear();
        let source = open(&layer?).map_err(failed)?;
        let root = flattener.root.try_clone().map_err(failed)?;
        flattener.directory(&source, &root, 0)?;
    }
    Ok(flattener.copied_bytes)
}

/// Gives the directories `paths` of a layer the attributes that they have in the layers `below`
/// (topmost first), where they are directories there.
pub(super) fn inherit_attributes(
    layer: &Path,
    paths: &[PathBuf],
    below: &[Layer],
) -> io::Result<()> {
    for path in paths {
        for lower in below {
            match find_below(&open(lower)?, path)? {
                Below::Hidden => break,
                Below::Absent => {}
                Below::Directory(source) => {
                    let target = open_beneath(&open_dir(CWD, layer)?, path)?;
                    copy_attributes(&source, &target, &rustix::fs::fstat(&source)?)?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Removes those of a layer's `whiteouts` that hide nothing, since their directory is not in the
/// layers `below` (topmost first): overlayfs would show them.
pub(super) fn drop_idle_whiteouts(
    layer: &Path,
    whiteouts: &[PathBuf],
    below: &[Layer],
) -> io::Result<()> {
    let mut known: HashMap<&Path, bool> = HashMap::new();
    for path in whiteouts {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let hides = match known.get(parent) {
            Some(hides) => *hides,
            None => *known.entry(parent).or_insert(is_dir_below(parent, below)?),
        };
        if hides {
            continue;
        }
        let directory = match open_beneath(&open_dir(CWD, layer)?, parent) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            opened => opened?,
        };
        let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| is_whiteout(&stat)) {
            let stat = rustix::fs::fstat(&directory)?;
            rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
            rustix::fs::futimens(&directory, &times(&stat))?;
        }
    }
    Ok(())
}

fn is_dir_below(path: &Path, below: &[Layer]) -> io::Result<bool> {
    for lower in below {
        match find_below(&open(lower)?, path)? {
            Below::Hidden => return Ok(false),
            Below::Absent => {}
            Below::Directory(_) => return Ok(true),
        }
    }
    Ok(false)
}

/// What a layer has at a path.
enum Below {
    /// Nothing: the next layer below shows.
    Absent,
    /// Something by which no directory of the layers below shows.
    Hidden,
    Directory(OwnedFd),
}

fn find_below(layer: &OwnedFd, path: &Path) -> io::Result<Below> {
    let mut current = layer.try_clone()?;
    let mut is_covered = false;
    for name in path {
        match open_dir(&current, name) {
            Ok(next) => current = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if is_covered {
                    Below::Hidden
                } else {
                    Below::Absent
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Below::Hidden),
            Err(error) => return Err(error),
        }
        is_covered |= is_opaque(&current);
    }
    Ok(Below::Directory(current))
}

fn open_beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let mut current = root.try_clone()?;
    for name in path {
        current = open_dir(&current, name)?;
    }
    Ok(current)
}

struct Flattener {
    files: Files,
    root: OwnedFd,
    /// Where in the tree the walk is.
    path: PathBuf,
    /// Where the present layer's files with several names were copied to.
    links: HashMap<(u64, u64), PathBuf>,
    copied_bytes: u64,
}

impl Flattener {
    /// Lays the directory `source` of a layer over `target`.
    fn directory(&mut self, source: &OwnedFd, target: &OwnedFd, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format_args!(
                "a layer has directories nested beyond {MAX_DEPTH} levels"
            )));
        }
        let shown = self.path.clone();
        let failed = |error: io::Error| {
            Error::io(format_args!("cannot flatten `/{}`", shown.display()), error)
        };
        let names = names(source).map_err(failed)?;
        for name in names {
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            self.entry(source, target, &name, depth)?;
            self.path.pop();
        }
        let stat = rustix::fs::fstat(source).map_err(|errno| failed(errno.into()))?;
        copy_attributes(source, target, &stat).map_err(failed)
    }

    fn entry(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        depth: usize,
    ) -> Result<()> {
        let shown = self.path.clone();
        let failed = |error: io::Error| {
            Error::io(format_args!("cannot flatten `/{}`", shown.display()), error)
        };
        let stat_of = |fd: &OwnedFd| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat_of(source).map_err(|errno| failed(errno.into()))?;
        let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir(&stat) {
            remove_entry(target, name)?;
            if is_whiteout(&stat) {
                return Ok(());
            }
            return self.leaf(source, target, name, &stat).map_err(failed);
        }
        let below = open_dir(source, name).map_err(failed)?;
        let merges = match stat_of(target) {
            Ok(existing) => is_dir(&existing) && !is_opaque(&below),
            Err(_) => false,
        };
        if !merges {
            remove_entry(target, name)?;
            rustix::fs::mkdirat(target, name, Mode::RWXU).map_err(|errno| failed(errno.into()))?;
        }
        let made = open_dir(target, name).map_err(failed)?;
        self.directory(&below, &made, depth + 1)
    }

    fn leaf(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        if self.files == Files::Linked {
            match rustix::fs::linkat(source, name, target, name, AtFlags::empty()) {
                // It lies in an image.
                Err(Errno::XDEV) => {}
                linked => return Ok(linked?),
            }
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return Ok(rustix::fs::linkat(
                    &self.root,
                    first,
                    target,
                    name,
                    AtFlags::empty(),
                )?);
            }
            self.links.insert(inode, self.path.clone());
        }
        copy_leaf(source, target, name, stat)?;
        match rustix::fs::statat(target, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(made) => self.copied_bytes += disk::allocated_of(&made),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

fn copy_leaf(source: &OwnedFd, target: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = rustix::fs::openat(source, name, flags, Mode::empty())?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?;
            if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
                let (mut from, mut to) = (
                    std::fs::File::from(from.try_clone()?),
                    std::fs::File::from(to.try_clone()?),
                );
                io::copy(&mut from, &mut to)?;
            }
            copy_attributes(&from, &to, stat)
        }
        // A socket means nothing without the process that listened on it.
        FileType::Socket => Ok(()),
        kind => {
            if kind == FileType::Symlink {
                let link = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(&link, target, name)?;
            } else {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)?;
            }
            let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(target, name, Some(owner.0), Some(owner.1), flags)?;
            if kind != FileType::Symlink {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::chmodat(target, name, mode, AtFlags::empty())?;
            }
            Ok(rustix::fs::utimensat(target, name, &times(stat), flags)?)
        }
    }
}

/// Gives `target` the owner, mode, extended attributes and times of `source`, in the order in
/// which the kernel doesn't undo any.
fn copy_attributes(source: &OwnedFd, target: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(target, Some(owner.0), Some(owner.1))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    for name in xattr_names(source)? {
        let mut value = vec![0; MAX_XATTR_BYTES];
        let length = rustix::fs::fgetxattr(source, &name, &mut value[..])?;
        rustix::fs::fsetxattr(target, &name, &value[..length], XattrFlags::empty())?;
    }
    Ok(rustix::fs::futimens(target, &times(stat))?)
}

/// Returns the names of the attributes to be copied: overlayfs' own are not.
fn xattr_names(fd: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut list = vec![0; MAX_XATTR_BYTES];
    let length = match rustix::fs::flistxattr(fd, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let names = list[..length].split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .filter(|name| {
            !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
        })
        .filter_map(|name| CString::new(name).ok())
        .collect())
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(directory: &OwnedFd) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            let mut value = [0; 1];
            rustix::fs::fgetxattr(directory, *name, &mut value[..]) == Ok(1) && value == *b"y"
        })
}

fn remove_entry(directory: &OwnedFd, name: &CStr) -> Result<()> {
    let failed = |error: io::Error| Error::io("cannot flatten layers", error);
    let root = Root::from_fd(directory.try_clone().map_err(failed)?);
    let removed = root.remove_all(OsStr::from_bytes(name.to_bytes()));
    removed
        .map(|_| ())
        .map_err(|error| Error::tree("cannot flatten layers", error))
}

fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Opens the root of a layer.
fn open(layer: &Layer) -> io::Result<OwnedFd> {
    match layer {
        Layer::Directory(path) => open_dir(CWD, path),
        Layer::Image(root) => open_dir(root, "."),
    }
}

fn open_dir(at: impl AsFd, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, path, DIRECTORY, Mode::empty())?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos as _,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
