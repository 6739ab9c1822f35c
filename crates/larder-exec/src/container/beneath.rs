//! Paths in a root filesystem, which is not trusted: each lookup is confined to it, and what is
//! missing is made one component at a time.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::HANDLE;

/// The most symbolic links that one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Opens a path in `root`, of which nothing leads out.
pub(crate) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let open = || rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    loop {
        match open() {
            // Something was renamed meanwhile, perhaps in a shared cache.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Makes missing directories and files in a root filesystem.
pub(super) struct Builder<'a> {
    root: BorrowedFd<'a>,
    stubs: Vec<String>,
}

/// What to make of a path that is missing.
#[derive(Clone, Copy)]
pub(super) struct Missing {
    /// Whether its last component is a file.
    pub(super) file: bool,
    /// Who owns what is made; `None` for root.
    pub(super) owner: Option<(u32, u32)>,
    /// Whether it goes after the run, leaving no trace.
    pub(super) stub: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self {
            root,
            stubs: Vec::new(),
        }
    }

    /// Returns the root filesystem.
    pub(super) fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// Returns what was made as stubs, parents first.
    pub(super) fn into_stubs(self) -> Vec<String> {
        self.stubs
    }

    /// Opens a path, and makes what is missing of it.
    pub(super) fn open(&mut self, path: &str, missing: Missing) -> rustix::io::Result<OwnedFd> {
        match open_in_root(self.root, path, HANDLE) {
            Err(Errno::NOENT) => self.make(path, missing),
            opened => opened,
        }
    }

    /// Walks `path` and makes what is missing. A link that leads nowhere gets what it names.
    fn make(&mut self, path: &str, missing: Missing) -> rustix::io::Result<OwnedFd> {
        // Free of links and `..`; empty for the root.
        let mut resolved = String::new();
        let mut ahead: Vec<String> = components(path);
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                resolved.truncate(resolved.rfind('/').unwrap_or(0));
                continue;
            }
            let candidate = format!("{resolved}/{name}");
            match open_in_root(self.root, &candidate, HANDLE | OFlags::NOFOLLOW) {
                Ok(found) => {
                    let status = rustix::fs::fstat(&found)?;
                    if FileType::from_raw_mode(status.st_mode) != FileType::Symlink {
                        resolved = candidate;
                        continue;
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
                    let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
                    if target.starts_with('/') {
                        resolved.clear();
                    }
                    ahead.extend(components(target));
                }
                Err(Errno::NOENT) => {
                    let file = missing.file && ahead.is_empty();
                    self.make_one(&resolved, &name, Missing { file, ..missing })?;
                    resolved = candidate;
                }
                Err(errno) => return Err(errno),
            }
        }
        open_in_root(self.root, &resolved, HANDLE)
    }

    /// Makes `name` in the directory `parent`.
    fn make_one(&mut self, parent: &str, name: &str, missing: Missing) -> rustix::io::Result<()> {
        let directory = open_in_root(
            self.root,
            parent,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        )?;
        let before = times(&directory)?;
        if missing.file {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o755))?;
        } else {
            rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))?;
        }
        if let Some((uid, gid)) = missing.owner {
            rustix::fs::chownat(
                &directory,
                name,
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
        }
        if missing.stub {
            rustix::fs::futimens(&directory, &before)?;
            self.stubs.push(format!("{parent}/{name}"));
        }
        Ok(())
    }
}

/// Removes stubs, if nothing came to be in them, and leaves their parents' times as they are.
pub(crate) fn remove_stubs(root: BorrowedFd<'_>, stubs: &[String]) {
    for stub in stubs.iter().rev() {
        if let Err(errno) = remove_stub(root, stub) {
            tracing::debug!(stub, %errno, "mount point stays");
        }
    }
}

fn remove_stub(root: BorrowedFd<'_>, stub: &str) -> rustix::io::Result<()> {
    let (parent, name) = stub.rsplit_once('/').ok_or(Errno::INVAL)?;
    let directory = open_in_root(
        root,
        parent,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
    )?;
    let status = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if status.st_size == 0 => AtFlags::empty(),
        _ => return Err(Errno::NOTEMPTY),
    };
    let before = times(&directory)?;
    rustix::fs::unlinkat(&directory, name, flags)?;
    rustix::fs::futimens(directory.as_fd(), &before)
}

fn times(directory: &OwnedFd) -> rustix::io::Result<Timestamps> {
    let status = rustix::fs::fstat(directory)?;
    Ok(Timestamps {
        last_access: Timespec {
            tv_sec: status.st_atime,
            tv_nsec: status.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: status.st_mtime,
            tv_nsec: status.st_mtime_nsec as _,
        },
    })
}

/// Returns the components of a path, last first.
fn components(path: &str) -> Vec<String> {
    path.rsplit('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .map(str::to_owned)
        .collect()
}
