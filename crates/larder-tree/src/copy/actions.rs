use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::copier::{depth_of, parent_of};
use super::options::{FileAttributes, timespec};
use super::transfer::{cannot_write, shown};
use crate::beneath::{DirAttributes, failed};
use crate::pattern::{Glob, clean_rooted, has_wildcards, split_wildcards};
use crate::sink::Sink;
use crate::sink::operations::Place;
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
pub fn mkdir(root: &impl Sink, path: &str, options: &MkdirOptions) -> Result<()> {
    let path = clean_rooted(path);
    let attributes = DirAttributes {
        mode: options.mode & 0o777,
        owner: options.attributes.owner,
        time: options.attributes.timestamp.map(timespec),
    };
    if !options.make_parents {
        let real = root.resolve(Path::new(&path))?;
        root.open_dir(real.parent().unwrap_or(Path::new("")))?;
    }
    root.create_dir_all(Path::new(&path), attributes).map(drop)
}

/// Makes a file of `data`, in place of any that exists; the directory must exist. A symlink is
/// followed beneath the root.
///
/// The file is written under another name and renamed, so that nothing is written through a
/// device that stood there.
pub fn mkfile(
    root: &impl Sink,
    path: &str,
    mode: u32,
    data: &[u8],
    attributes: FileAttributes,
) -> Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let target = root.resolve(Path::new(&clean_rooted(path)))?;
    let failed = |errno| cannot_write(&target, errno);
    let (dir, name) = parent_of(root, &target)?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".larder-mkfile-{}-{number}", std::process::id());
    let temporary = OsStr::new(&temporary);
    let write = || {
        let mut file = root.make_file(&dir, temporary)?;
        root.write(&mut file, data)?;
        if let Some((uid, gid)) = attributes.owner {
            root.set_owner(Place::File(&mut file), uid, gid)?;
        }
        root.set_mode(Place::File(&mut file), mode & 0o777)?;
        if let Some(nanos) = attributes.timestamp {
            root.set_time(Place::File(&mut file), timespec(nanos))?;
        }
        root.close(file)?;
        root.rename(&dir, temporary, name)
    };
    write().map_err(|errno| {
        // The first error tells more than one about what is left over.
        let _ = root.remove(&dir, temporary);
        failed(errno)
    })
}

/// Makes a symlink to `target`, which is stored as it is. Nothing may be in its place.
pub fn symlink(
    root: &impl Sink,
    target: &str,
    path: &str,
    attributes: FileAttributes,
) -> Result<()> {
    let real = root.resolve(Path::new(&clean_rooted(path)))?;
    let (dir, name) = parent_of(root, &real)?;
    let make = || {
        root.make_symlink(&dir, name, OsStr::new(target))?;
        if let Some((uid, gid)) = attributes.owner {
            root.set_owner(Place::Entry(&dir, name), uid, gid)?;
        }
        match attributes.timestamp {
            Some(nanos) => root.set_time(Place::Entry(&dir, name), timespec(nanos)),
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
pub fn remove(
    root: &impl Sink,
    path: &str,
    allow_not_found: bool,
    allow_wildcard: bool,
) -> Result<()> {
    let path = clean_rooted(path);
    let paths = if allow_wildcard && has_wildcards(&path) {
        matches(root, &path)?
    } else {
        vec![PathBuf::from(&path)]
    };
    for path in paths {
        if path.file_name().is_none() {
            let message = "cannot remove the root of a tree";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !remove_one(root, &path)? && !allow_not_found {
            let path = shown(path.strip_prefix("/").unwrap_or(&path));
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{path:?}: not found"),
            ));
        }
    }
    Ok(())
}

fn remove_one(root: &impl Sink, path: &Path) -> Result<bool> {
    match parent_of(root, path) {
        Ok((dir, name)) => root
            .remove(&dir, name)
            .map_err(|errno| failed("remove", path, errno)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the paths that a cleaned pattern matches, without those that lie in another one.
fn matches<S: Sink>(root: &S, pattern: &str) -> Result<Vec<PathBuf>> {
    let (prefix, rest) = split_wildcards(pattern);
    let glob = Glob::new(&rest)?;
    let prefix = Path::new(&prefix);
    let base = match (prefix.parent(), prefix.file_name()) {
        (Some(parent), Some(name)) => root.resolve(parent)?.join(name),
        _ => PathBuf::new(),
    };
    let Some(dir) = enter(root, &base)? else {
        return Ok(Vec::new());
    };
    let depth = depth_of(&rest);
    let mut matches = Vec::new();
    let mut pending = vec![(dir, PathBuf::new(), 1)];
    while let Some((dir, above, level)) = pending.pop() {
        let names = root.names(&dir);
        for name in names.map_err(|errno| failed("list", &base.join(&above), errno))? {
            let below = above.join(&name);
            if glob.matches(below.as_os_str().as_bytes()) {
                matches.push(base.join(below));
            } else if level < depth
                && let Ok(sub) = root.enter(&dir, &name)
            {
                pending.push((sub, below, level + 1));
            }
        }
    }
    matches.sort_unstable();
    Ok(matches)
}

/// Opens the directory at a path without symlinks, `None` if there is none.
fn enter<S: Sink>(root: &S, path: &Path) -> Result<Option<S::Dir>> {
    if path.as_os_str().is_empty() {
        return root.open_dir(path).map(Some);
    }
    let (dir, name) = match parent_of(root, path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match root.enter(&dir, name) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(failed("list", path, errno)),
    }
}
