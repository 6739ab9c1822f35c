use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timestamps, Uid};

use super::content::write_all;
use super::copier::expand;
use super::options::{FileAttributes, timespec};
use super::transfer::{cannot_write, shown};
use crate::beneath::{DirAttributes, Root};
use crate::context::Tree;
use crate::pattern::{clean_rooted, has_wildcards};
use crate::{Error, ErrorKind, Result};

/// How [`mkdir`] makes a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MkdirOptions {
    /// Permission bits.
    pub mode: u32,
    /// Whether the directories that lead to it are made too, with the same attributes.
    pub make_parents: bool,
    /// Its other attributes.
    pub attributes: FileAttributes,
}

/// Makes a directory. One that exists is left as it is.
pub fn mkdir(root: &Root, path: &str, options: &MkdirOptions) -> Result<()> {
    let path = clean_rooted(path);
    let attributes = DirAttributes {
        mode: options.mode & 0o777,
        owner: options.attributes.owner,
        time: options.attributes.timestamp.map(timespec),
    };
    if !options.make_parents {
        let real = root.resolve(&path)?;
        root.open_dir(real.parent().unwrap_or(Path::new("")))?;
    }
    root.create_dir_all(&path, attributes).map(drop)
}

/// Makes a file of `data`, in place of any that exists; the directory must exist. A symlink is
/// followed beneath the root.
///
/// The file is written under another name and renamed, so that nothing is written through a
/// device that stood there.
pub fn mkfile(
    root: &Root,
    path: &str,
    mode: u32,
    data: &[u8],
    attributes: FileAttributes,
) -> Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let target = root.resolve(clean_rooted(path))?;
    let failed = |errno| cannot_write(&target, errno);
    let (dir, name) = root.parent_of(&target)?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".larder-mkfile-{}-{number}", std::process::id());
    let write = || {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = fs::openat(&dir, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        write_all(fd.as_fd(), data)?;
        if let Some((uid, gid)) = attributes.owner {
            fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o777))?;
        if let Some(nanos) = attributes.timestamp {
            fs::futimens(&fd, &both(nanos))?;
        }
        fs::renameat(&dir, &temporary, &dir, &name)
    };
    write().map_err(|errno| {
        // The first error tells more than one about what is left over.
        let _ = fs::unlinkat(&dir, &temporary, AtFlags::empty());
        failed(errno)
    })
}

/// Makes a symlink to `target`, which is stored as it is. Nothing may be in its place.
pub fn symlink(root: &Root, target: &str, path: &str, attributes: FileAttributes) -> Result<()> {
    let real = root.resolve(clean_rooted(path))?;
    let (dir, name) = root.parent_of(&real)?;
    let make = || {
        fs::symlinkat(target, &dir, &name)?;
        if let Some((uid, gid)) = attributes.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fs::chownat(&dir, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        match attributes.timestamp {
            Some(nanos) => fs::utimensat(&dir, &name, &both(nanos), AtFlags::SYMLINK_NOFOLLOW),
            None => Ok(()),
        }
    };
    make().map_err(|errno| cannot_write(&real, errno))
}

/// Removes what is at `path`, with all beneath it; with `allow_wildcard`, all that a pattern
/// matches. A symlink is removed, not followed.
///
/// # Errors
/// `NotFound` for a path that doesn't exist, unless `allow_not_found`; a pattern may match
/// nothing. `InvalidInput` for the root.
pub fn remove(root: &Root, path: &str, allow_not_found: bool, allow_wildcard: bool) -> Result<()> {
    let path = clean_rooted(path);
    let paths = if allow_wildcard && has_wildcards(&path) {
        expand(&Tree::view(root.try_clone()?)?, &path, false)?
    } else {
        vec![PathBuf::from(&path)]
    };
    for path in paths {
        if path.file_name().is_none() {
            let message = "cannot remove the root of a tree";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !root.remove_all(&path)? && !allow_not_found {
            let path = shown(path.strip_prefix("/").unwrap_or(&path));
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{path:?}: not found"),
            ));
        }
    }
    Ok(())
}

fn both(nanos: i64) -> Timestamps {
    Timestamps {
        last_access: timespec(nanos),
        last_modification: timespec(nanos),
    }
}
