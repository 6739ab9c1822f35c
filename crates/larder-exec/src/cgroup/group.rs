//! Directories of cgroups: those of larder processes, and in them those of runs.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::devices;
use super::hierarchy::Hierarchy;

/// How often the removal of a cgroup is tried, and how long each time it is waited for to be empty.
const REMOVAL_TRIES: usize = 50;
const REMOVAL_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// How long it is waited for in version 1, which tells of nothing.
const BLIND_WAIT: std::time::Duration = std::time::Duration::from_millis(2);

/// The directories of this process.
static SESSIONS: Mutex<Option<HashMap<SessionKey, Session>>> = Mutex::new(None);

/// Tells apart the directories of one process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    pub(super) hierarchy: Hierarchy,
    /// The parent that was asked for.
    pub(super) parent: Option<String>,
    /// Whether the runs in it may open everybody's devices only.
    pub(super) filters_devices: bool,
}

/// The directory of a larder process.
struct Session {
    /// Holds the lock.
    directory: OwnedFd,
    path: PathBuf,
    /// Whether devices are filtered: not so where the kernel can't.
    filters_devices: bool,
    runs_count: u64,
}

/// A cgroup of a run. Removed on drop.
pub(super) struct Group {
    directory: OwnedFd,
    path: PathBuf,
    hierarchy: Hierarchy,
    filters_devices: bool,
}

impl Group {
    /// Makes a cgroup for a run.
    pub(super) fn create(key: &SessionKey) -> rustix::io::Result<Self> {
        let hierarchy = key.hierarchy;
        let mut sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = sessions.get_or_insert_default();
        if !sessions.contains_key(key) {
            let session = Session::create(key)?;
            sessions.insert(key.clone(), session);
        }
        let session = sessions.get_mut(key).ok_or(Errno::NOENT)?;
        session.runs_count += 1;
        let name = session.runs_count.to_string();
        make(hierarchy, &session.path.join(&name))?;
        Ok(Self {
            directory: open_directory(&session.directory, &name)?,
            path: session.path.join(name),
            hierarchy,
            filters_devices: session.filters_devices,
        })
    }

    /// Returns the directory.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Returns whether only everybody's devices can be opened in it.
    pub(super) fn filters_devices(&self) -> bool {
        self.filters_devices
    }

    /// Turns on a controller of version 2 for it, in all cgroups above.
    pub(super) fn hand_down(&self, controller: &str) {
        let mount = self.hierarchy.mount().unwrap_or(Path::new("/"));
        let mut above: Vec<&Path> = self.path.ancestors().skip(1).collect();
        above.retain(|path| path.starts_with(mount));
        for path in above.into_iter().rev() {
            // Fails where it is on already by other means; what counts is the limit set then.
            let enabled = fs_err::write(
                path.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
            tracing::trace!(controller, ?enabled, "hand down");
        }
    }

    pub(super) fn read(&self, name: &str) -> Option<String> {
        let mut text = String::new();
        open_file(&self.directory, name, OFlags::RDONLY)?
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    }

    pub(super) fn write(&self, name: &str, value: &str) -> rustix::io::Result<()> {
        write(&self.directory, name, value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(errno) = remove(&self.path) {
            tracing::warn!(%errno, "cannot remove a cgroup");
        }
    }
}

impl Session {
    fn create(key: &SessionKey) -> rustix::io::Result<Self> {
        let base = make_base(key)?;
        let pid = std::process::id();
        for number in 0.. {
            let path = base.join(format!("{pid}.{number}"));
            match make(key.hierarchy, &path) {
                // A dead process had the same id, or it is another directory of this one.
                Err(Errno::EXIST) => continue,
                made => made?,
            }
            let directory = open_directory(CWD, &path)?;
            rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
            // A sweep may have come before the lock.
            if rustix::fs::stat(&path).is_ok() {
                return Ok(Self {
                    filters_devices: key.filters_devices && filter_devices(&directory),
                    directory,
                    path,
                    runs_count: 0,
                });
            }
        }
        Err(Errno::EXIST)
    }
}

/// Keeps all but everybody's devices from a cgroup and those below it; returns whether they are.
fn filter_devices(directory: &OwnedFd) -> bool {
    let filtered = devices::program(&[]).and_then(|program| devices::attach(directory, &program));
    tracing::debug!(?filtered, "devices");
    filtered.is_ok()
}

/// Makes a directory.
fn make(hierarchy: Hierarchy, path: &Path) -> rustix::io::Result<()> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
    if hierarchy == Hierarchy::Legacy("cpuset")
        && let Some(parent) = path.parent()
    {
        // Of version 1: they begin with none, and take no process then.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let inherited = fs_err::read_to_string(parent.join(file));
            let inherited = inherited.and_then(|text| fs_err::write(path.join(file), text.trim()));
            tracing::trace!(?inherited, file, "cpuset");
        }
    }
    Ok(())
}

/// Makes and returns the directory for sessions.
fn make_base(key: &SessionKey) -> rustix::io::Result<PathBuf> {
    let mut refused = Errno::NOENT;
    for base in key.hierarchy.bases(key.parent.as_deref()) {
        match make_all(key.hierarchy, &base) {
            Ok(()) => return Ok(base),
            Err(errno) => refused = errno,
        }
    }
    Err(refused)
}

fn make_all(hierarchy: Hierarchy, path: &Path) -> rustix::io::Result<()> {
    match make(hierarchy, path) {
        Err(Errno::NOENT) => {
            make_all(hierarchy, path.parent().ok_or(Errno::NOENT)?)?;
            make_all(hierarchy, path)
        }
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Removes what larder processes that are dead left: kills their containers, removes their
/// cgroups.
pub fn sweep() {
    for base in Hierarchy::all().flat_map(|hierarchy| hierarchy.bases(None)) {
        let Ok(entries) = fs_err::read_dir(&base) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let reclaimed = reclaim(&path, FlockOperation::NonBlockingLockExclusive);
                tracing::debug!(?path, ?reclaimed, "sweep");
            }
        }
    }
}

/// Lets go of this process's directories.
pub(crate) fn close() {
    let sessions = SESSIONS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    for session in sessions.unwrap_or_default().into_values() {
        // Refused if a run still goes on: the spawner removes it then.
        let removed = rustix::fs::rmdir(&session.path);
        tracing::trace!(?removed, "close");
    }
}

/// Removes the directory of a larder process with all in it, once its lock is free.
pub(crate) fn reclaim(path: &Path, lock: FlockOperation) -> rustix::io::Result<()> {
    let directory = match open_directory(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    rustix::fs::flock(&directory, lock)?;
    if let Ok(runs) = fs_err::read_dir(path) {
        for run in runs.flatten() {
            if run.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&run.path())?;
            }
        }
    }
    remove(path)
}

/// Kills what is in a cgroup and removes it.
fn remove(path: &Path) -> rustix::io::Result<()> {
    for _ in 0..REMOVAL_TRIES {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno),
        }
        let directory = match open_directory(CWD, path) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        // Absent before Linux 5.14, and in version 1: then the PID namespace's end is waited for.
        let killed = write(&directory, "cgroup.kill", "1");
        tracing::trace!(?killed, "kill");
        wait_until_empty(&directory);
    }
    Err(Errno::BUSY)
}

/// Waits for the last process of a cgroup to end, but no longer than [`REMOVAL_WAIT`].
fn wait_until_empty(directory: &OwnedFd) {
    let Some(mut events) = open_file(directory, "cgroup.events", OFlags::RDONLY) else {
        std::thread::sleep(BLIND_WAIT);
        return;
    };
    // Changes are told from the first reading on.
    let mut text = String::new();
    if events.read_to_string(&mut text).is_ok() && field(&text, "populated") == Some(1) {
        let mut polled = [PollFd::new(&events, PollFlags::PRI)];
        let changed = rustix::event::poll(&mut polled, Some(&REMOVAL_WAIT));
        tracing::trace!(?changed, "wait");
    }
}

fn open_directory(parent: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, path, flags, Mode::empty())
}

fn open_file(directory: &OwnedFd, name: &str, flags: OFlags) -> Option<std::fs::File> {
    rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())
        .ok()
        .map(std::fs::File::from)
}

fn write(directory: &OwnedFd, name: &str, value: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    rustix::io::write(file, value.as_bytes())?;
    Ok(())
}

/// Returns the number behind `name` in lines of `name number`.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|number| number.trim().parse().ok())
}
