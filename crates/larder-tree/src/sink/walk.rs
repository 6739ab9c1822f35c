//! Resolution of paths in trees that the kernel doesn't show as a whole: as
//! [`Root`](crate::beneath::Root) resolves them.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::beneath::{MAX_SYMLINKS, Step, steps};

/// The kernel's limit on a path, with the zero at its end.
const MAX_PATH_BYTES: usize = 4096;
/// The kernel's limit on a name.
const MAX_NAME_BYTES: usize = 255;

/// A tree whose directories are looked into by name.
pub(crate) trait Walk {
    /// A directory.
    type Dir: Clone;

    /// Returns what is seen under a name.
    fn look(&mut self, dir: &Self::Dir, name: &OsStr) -> Result<Seen<Self::Dir>, Errno>;
}

/// What is seen under a name.
#[derive(Debug, Clone)]
pub(crate) enum Seen<D> {
    Nothing,
    Dir(D),
    /// A symlink with its target.
    Link(PathBuf),
    Other(FileType),
}

/// The names of a path without symlinks, each with what is there.
type Reached<D> = Vec<(OsString, Seen<D>)>;

/// Returns the directory that `path` leads to beneath `root`, symlinks included.
pub(crate) fn open_dir<W: Walk>(tree: &mut W, root: &W::Dir, path: &Path) -> Result<W::Dir, Errno> {
    match follow(tree, root, path)? {
        Seen::Dir(dir) => Ok(dir),
        Seen::Nothing => Err(Errno::NOENT),
        Seen::Link(_) | Seen::Other(_) => Err(Errno::NOTDIR),
    }
}

/// Returns the type of what `path` leads to beneath `root`, symlinks included.
pub(crate) fn type_at<W: Walk>(
    tree: &mut W,
    root: &W::Dir,
    path: &Path,
) -> Result<FileType, Errno> {
    match follow(tree, root, path)? {
        Seen::Dir(_) => Ok(FileType::Directory),
        Seen::Link(_) => Ok(FileType::Symlink),
        Seen::Other(file_type) => Ok(file_type),
        Seen::Nothing => Err(Errno::NOENT),
    }
}

/// Returns the path that `path` leads to beneath `root`, as
/// [`Root::resolve`](crate::beneath::Root::resolve) does.
pub(crate) fn resolve<W: Walk>(tree: &mut W, root: &W::Dir, path: &Path) -> Result<PathBuf, Errno> {
    let reached = walk(tree, root, path, false)?;
    Ok(reached.into_iter().map(|(name, _)| name).collect())
}

fn follow<W: Walk>(tree: &mut W, root: &W::Dir, path: &Path) -> Result<Seen<W::Dir>, Errno> {
    if path.as_os_str().len() >= MAX_PATH_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    let last = walk(tree, root, path, true)?.pop();
    Ok(last.map_or_else(|| Seen::Dir(root.clone()), |(_, reached)| reached))
}

/// Follows `path` name by name. With `must_exist`, all but the last name must be directories. No
/// symlinks are left.
fn walk<W: Walk>(
    tree: &mut W,
    root: &W::Dir,
    path: &Path,
    must_exist: bool,
) -> Result<Reached<W::Dir>, Errno> {
    let mut pending: VecDeque<Step> = steps(path).collect();
    let mut reached: Reached<W::Dir> = Vec::new();
    let mut symlinks = 0;
    while let Some(step) = pending.pop_front() {
        let parent = match reached.last() {
            None => Some(root.clone()),
            Some((_, Seen::Dir(dir))) => Some(dir.clone()),
            Some((_, Seen::Nothing)) if must_exist && !matches!(step, Step::Root) => {
                return Err(Errno::NOENT);
            }
            Some(_) if must_exist && !matches!(step, Step::Root) => return Err(Errno::NOTDIR),
            Some(_) => None,
        };
        let name = match step {
            Step::Root => {
                reached.clear();
                continue;
            }
            Step::Up => {
                reached.pop();
                continue;
            }
            Step::Name(name) => name,
        };
        let Some(dir) = parent else {
            reached.push((name, Seen::Nothing));
            continue;
        };
        if name.as_bytes().len() > MAX_NAME_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        match tree.look(&dir, &name)? {
            Seen::Link(target) => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(Errno::LOOP);
                }
                for step in steps(&target).rev() {
                    pending.push_front(step);
                }
            }
            seen => reached.push((name, seen)),
        }
    }
    Ok(reached)
}
