//! Resolution of paths beneath a directory handle.
//!
//! Paths that come from images, archives or clients are never given to the kernel as they are: a
//! [`Root`] resolves them as a process would whose root directory is the tree, with `openat2`, so
//! that neither `..` nor a symlink leaves it, also when the tree changes meanwhile.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps,
    Uid,
};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Result};

/// How often a look-up is repeated that raced with a rename (`EAGAIN`).
const MAX_RACES: usize = 128;

/// How many symlinks one path may lead through; the kernel's own limit.
pub(crate) const MAX_SYMLINKS: usize = 40;

/// How many directories are held open while a tree is removed; deeper ones are moved up first.
const MAX_OPEN_DEPTH: usize = 64;

/// A tree of files, held by the handle of its topmost directory.
///
/// Every path is relative to that directory; a leading `/` means the directory itself. The
/// directory may also be one of a detached mount.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// What [`Root::create_dir_all`] gives to the directories that it makes.
#[derive(Debug, Clone, Copy)]
pub struct DirAttributes {
    /// Permission bits with setuid, setgid and sticky; the umask does not apply.
    pub mode: u32,
    /// User and group; those of the process if absent.
    pub owner: Option<(u32, u32)>,
    /// Time of access and modification; the present if absent.
    pub time: Option<Timespec>,
}

impl Default for DirAttributes {
    fn default() -> Self {
        Self {
            mode: 0o755,
            owner: None,
            time: None,
        }
    }
}

/// The result of [`Root::create_dir_all`].
#[derive(Debug)]
pub struct CreatedDir {
    /// The directory asked for, open for reading.
    pub fd: OwnedFd,
    /// Real paths of the directories made, parents first; empty if all existed.
    pub created: Vec<PathBuf>,
}

impl Root {
    /// Opens the directory at `path`, a path of the host that is trusted.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat(CWD, path, flags, Mode::empty())
            .map(Self::from_fd)
            .map_err(|errno| Error::io("cannot open the root of a tree", errno))
    }

    /// Takes the handle of a directory as a tree. An `O_PATH` handle serves for look-ups only.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Returns a second handle of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone();
        fd.map(Self::from_fd)
            .map_err(|error| Error::io("cannot duplicate a directory handle", error))
    }

    /// Opens the directory at `path` as a tree of its own, out of which paths do not lead.
    pub fn subtree(&self, path: impl AsRef<Path>) -> Result<Self> {
        self.open_dir(path).map(Self::from_fd)
    }

    /// Opens what `path` leads to, symlinks included, with `flags` (close-on-exec is added). With
    /// `CREATE`, `mode` less the umask is given to a new file.
    pub fn open_file(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let path = path.as_ref();
        self.openat2(path, flags, mode)
            .map_err(|errno| failed("open", path, errno))
    }

    /// Opens the directory that `path` leads to, for reading.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Returns an `O_PATH` handle of `path`; a symlink as last component is not followed.
    pub fn open_path(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_file(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
    }

    /// Returns the directory that `path` lies in, open for reading, and the last name of `path`,
    /// whether or not that exists.
    ///
    /// # Errors
    /// `InvalidInput` for a path without a last name: the root, or one ending in `..`.
    pub fn parent_of(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString)> {
        let path = path.as_ref();
        let name = path.file_name().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("path `{}` names no entry of a directory", path.display()),
            )
        })?;
        let parent = self.open_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name.to_owned()))
    }

    /// Returns the attributes of what `path` leads to.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Stat> {
        let path = path.as_ref();
        self.openat2(path, OFlags::PATH, Mode::empty())
            .and_then(fs::fstat)
            .map_err(|errno| failed("look up", path, errno))
    }

    /// Returns the attributes of `path` itself: of the symlink, where it is one.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Stat> {
        let path = path.as_ref();
        self.openat2(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .and_then(fs::fstat)
            .map_err(|errno| failed("look up", path, errno))
    }

    /// Returns the target of the symlink at `path`, as it is stored.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        self.openat2(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
            .and_then(|fd| read_link_fd(&fd))
            .map_err(|errno| failed("read the link", path, errno))
    }

    /// Returns the path, relative to the root, that `path` leads to when all symlinks in it are
    /// followed. From the first name that doesn't exist on, the rest is cleaned of `.` and `..` as
    /// text. The root itself is the empty path.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let path = path.as_ref();
        self.walk(path)
            .map_err(|errno| failed("resolve", path, errno))
    }

    /// Opens the directory that `path` leads to and makes what is missing of it, with its
    /// parents. Directories that exist keep their attributes.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<Path>,
        attributes: DirAttributes,
    ) -> Result<CreatedDir> {
        let path = path.as_ref();
        let real = self.resolve(path)?;
        let error = |errno| failed("create the directory", path, errno);

        let mut fd = self.open_dir("")?;
        let mut at = PathBuf::new();
        let mut created = Vec::new();
        let mut created_fds = Vec::new();
        for name in &real {
            at.push(name);
            let (next, is_new) = enter_or_create(&fd, name, attributes).map_err(error)?;
            if is_new {
                created.push(at.clone());
                created_fds.push(
                    next.try_clone()
                        .map_err(|e| Error::io("cannot duplicate a directory handle", e))?,
                );
            }
            fd = next;
        }
        // Making a child changes its parent's time, so the times come last.
        if let Some(time) = attributes.time {
            for dir in &created_fds {
                fs::futimens(dir, &both_times(time)).map_err(error)?;
            }
        }
        Ok(CreatedDir { fd, created })
    }

    /// Removes what is at `path` with all beneath it; a symlink is removed, not followed. Returns
    /// whether there was anything.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let (parent, name) = match self.parent_of(path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        remove_entry(&parent, &name).map_err(|errno| failed("remove", path, errno))
    }

    /// Removes all that the root directory holds, but not itself.
    pub fn clear(&self) -> Result<()> {
        for name in read_names(self.open_dir("")?).map_err(|e| failed("read", Path::new(""), e))? {
            self.remove_all(Path::new(&name))?;
        }
        Ok(())
    }

    fn openat2(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut races = 0;
        loop {
            match fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN) if races < MAX_RACES => races += 1,
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Follows `path` name by name; each step opens one name in a directory held by handle.
    fn walk(&self, path: &Path) -> Result<PathBuf, Errno> {
        let mut pending: VecDeque<Step> = steps(path).collect();
        let mut reached: Vec<(OsString, Option<OwnedFd>)> = Vec::new();
        let mut symlinks = 0;
        while let Some(step) = pending.pop_front() {
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
            let parent = match reached.last() {
                None => Some(self.fd.as_fd()),
                Some((_, fd)) => fd.as_ref().map(AsFd::as_fd),
            };
            let Some(parent) = parent else {
                reached.push((name, None));
                continue;
            };
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match fs::openat(parent, &name, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    reached.push((name, None));
                    continue;
                }
                Err(errno) => return Err(errno),
            };
            if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) == FileType::Symlink {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(Errno::LOOP);
                }
                for step in steps(&read_link_fd(&fd)?).rev() {
                    pending.push_front(step);
                }
            } else {
                reached.push((name, Some(fd)));
            }
        }
        Ok(reached.into_iter().map(|(name, _)| name).collect())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Root> for OwnedFd {
    fn from(root: Root) -> Self {
        root.fd
    }
}

/// Removes the entry `name` of `parent` with all beneath it, without following symlinks. Returns
/// whether there was one.
///
/// # Errors
/// Those of the system calls, with no path added.
pub(crate) fn remove_entry(parent: impl AsFd, name: &OsStr) -> Result<bool, Errno> {
    match fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        // Linux says `EISDIR`, POSIX `EPERM`.
        Err(Errno::ISDIR | Errno::PERM) => remove_dir(parent.as_fd(), name).map(|()| true),
        Err(errno) => Err(errno),
    }
}

/// Returns the names in the directory `fd`, in no order, without `.` and `..`.
pub(crate) fn read_names(fd: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// One step of a path.
pub(crate) enum Step {
    Root,
    Up,
    Name(OsString),
}

/// Returns the steps of a path, or of the target of a symlink.
pub(crate) fn steps(path: &Path) -> impl DoubleEndedIterator<Item = Step> {
    path.components().filter_map(|component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    })
}

fn read_link_fd(fd: &OwnedFd) -> Result<PathBuf, Errno> {
    let target = fs::readlinkat(fd, "", Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()).into())
}

fn both_times(time: Timespec) -> Timestamps {
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Opens the directory `name` of `parent`, or makes it; the flag tells which.
fn enter_or_create(
    parent: &OwnedFd,
    name: &OsStr,
    attributes: DirAttributes,
) -> Result<(OwnedFd, bool), Errno> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(parent, name, flags, Mode::empty())
    };
    match open() {
        Err(Errno::NOENT) => {}
        found => return found.map(|fd| (fd, false)),
    }
    match fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return open().map(|fd| (fd, false)),
        Err(errno) => return Err(errno),
    }
    let fd = open()?;
    if let Some((uid, gid)) = attributes.owner {
        fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fs::fchmod(&fd, Mode::from_raw_mode(attributes.mode & 0o7777))?;
    Ok((fd, true))
}

/// A directory being removed: its handle, and the names in it still to be removed.
struct Doomed {
    fd: OwnedFd,
    name: OsString,
    pending: Vec<OsString>,
}

impl Doomed {
    fn open(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match fs::openat(parent, name, flags, Mode::empty()) {
            Err(Errno::ACCESS) => {
                // A directory of ours without permissions, such as overlayfs' work directory.
                let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let handle = fs::openat(parent, name, path, Mode::empty())?;
                let through_proc = format!("/proc/self/fd/{}", handle.as_raw_fd());
                fs::chmodat(CWD, through_proc, Mode::RWXU, AtFlags::empty())?;
                fs::openat(parent, name, flags, Mode::empty())?
            }
            opened => opened?,
        };
        let pending = read_names(&fd)?;
        Ok(Self {
            fd,
            name: name.to_owned(),
            pending,
        })
    }

    /// Removes the files among the pending names; returns the next one that is a directory.
    fn next_dir(&mut self) -> Result<Option<OsString>, Errno> {
        while let Some(name) = self.pending.pop() {
            let mut result = fs::unlinkat(&self.fd, &name, AtFlags::empty());
            if result == Err(Errno::ACCESS) {
                fs::fchmod(&self.fd, Mode::RWXU)?;
                result = fs::unlinkat(&self.fd, &name, AtFlags::empty());
            }
            match result {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => return Ok(Some(name)),
                Err(errno) => return Err(errno),
            }
        }
        Ok(None)
    }
}

/// Removes the directory `name` of `parent` without recursion and with a bounded number of
/// handles: what lies too deep is moved to the top first.
fn remove_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let mut stack = vec![Doomed::open(parent, name)?];
    let mut moved = 0_u64;
    while let Some(top) = stack.last_mut() {
        if let Some(sub) = top.next_dir()? {
            if stack.len() < MAX_OPEN_DEPTH {
                let child = Doomed::open(stack[stack.len() - 1].fd.as_fd(), &sub)?;
                stack.push(child);
            } else {
                let flat = OsString::from(format!(".larder-remove-{moved}"));
                moved += 1;
                let (first, last) = (&stack[0].fd, &stack[stack.len() - 1].fd);
                match fs::renameat_with(last, &sub, first, &flat, fs::RenameFlags::NOREPLACE) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => stack[MAX_OPEN_DEPTH - 1].pending.push(sub),
                    Err(errno) => return Err(errno),
                }
            }
            continue;
        }
        let Some(done) = stack.pop() else { break };
        let above = stack.last().map_or(parent, |above| above.fd.as_fd());
        match fs::unlinkat(above, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Directories were moved here meanwhile.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let again = Doomed::open(above, &done.name)?;
                stack.push(again);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

pub(crate) fn failed(action: &str, path: &Path, errno: Errno) -> Error {
    Error::io(
        format!("cannot {action} `{}`", path.display()),
        io::Error::from(errno),
    )
}
