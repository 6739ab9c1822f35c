//! Cgroups of version 2: one directory for each run, beneath one for each larder process.
//!
//! ```text
//! <cgroup2 mount>/larder/<pid>.<n>/<run>
//! ```
//!
//! The directory of a process is locked (`flock`) while it lives, so that [`sweep`] can tell what
//! the dead left. Where cgroups can't be made, runs do without: a container is also held
//! together by its PID namespace.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, ErrorKind, ResourceLimits, Result};

/// The directory beneath which all of larder's cgroups lie.
const DIRECTORY: &str = "larder";

/// How often the removal of a cgroup is tried, and how long each time it is waited for to be empty.
const REMOVAL_TRIES: usize = 50;
const REMOVAL_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The period in which processor time is shared out, in microseconds (the kernel's default).
const CPU_PERIOD_MICROS: u64 = 100_000;

/// The directories of this process, by the parent that was asked for.
static SESSIONS: Mutex<Option<HashMap<Option<String>, Session>>> = Mutex::new(None);

/// The directory of a larder process.
struct Session {
    /// Holds the lock.
    directory: OwnedFd,
    path: PathBuf,
    runs_count: u64,
}

/// The cgroup of a run. Removed on drop.
pub(crate) struct Cgroup {
    directory: OwnedFd,
    path: PathBuf,
}

/// What the processes of a cgroup used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CgroupUsage {
    pub(crate) user_micros: u64,
    pub(crate) system_micros: u64,
}

impl Cgroup {
    /// Makes a cgroup for a run, beneath `parent` if given. `None` if this process can't.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a parent that is no path beneath the root, and
    /// [`ErrorKind::Unsupported`] if a parent or limits are asked for that can't be had.
    pub(crate) fn create(parent: Option<&str>, limits: &ResourceLimits) -> Result<Option<Self>> {
        if let Some(parent) = parent
            && parent.split('/').any(|name| name == "..")
        {
            let message = format!("cgroup parent `{parent}` leaves the hierarchy");
            return Err(Error::new(ErrorKind::Input, message));
        }
        let cgroup = match Self::create_in_session(parent) {
            Ok(cgroup) => cgroup,
            Err(errno) if parent.is_none() && *limits == ResourceLimits::default() => {
                tracing::debug!(%errno, "running without a cgroup");
                return Ok(None);
            }
            Err(errno) => {
                let message = "cannot make a cgroup of version 2";
                return Err(Error::caused(ErrorKind::Unsupported, message, errno));
            }
        };
        cgroup.limit(limits)?;
        Ok(Some(cgroup))
    }

    fn create_in_session(parent: Option<&str>) -> rustix::io::Result<Self> {
        let mut sessions = SESSIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = sessions.get_or_insert_default();
        let key = parent.map(str::to_owned);
        if !sessions.contains_key(&key) {
            sessions.insert(key.clone(), Session::create(parent)?);
        }
        let session = sessions.get_mut(&key).ok_or(Errno::NOENT)?;
        session.runs_count += 1;
        let name = session.runs_count.to_string();
        rustix::fs::mkdirat(&session.directory, &name, Mode::from_raw_mode(0o755))?;
        Ok(Self {
            directory: open_directory(&session.directory, &name)?,
            path: session.path.join(name),
        })
    }

    /// Sets limits, after handing down the controllers they need.
    fn limit(&self, limits: &ResourceLimits) -> Result<()> {
        let cpu = limits
            .cpu_millis
            .map(|millis| format!("{} {CPU_PERIOD_MICROS}", millis * CPU_PERIOD_MICROS / 1000));
        let settings = [
            (
                "memory",
                "memory.max",
                limits.memory_bytes.map(|bytes| bytes.to_string()),
            ),
            (
                "pids",
                "pids.max",
                limits.pids_count.map(|count| count.to_string()),
            ),
            ("cpu", "cpu.max", cpu),
        ];
        for (controller, file, value) in settings {
            let Some(value) = value else { continue };
            let mount = mount_point().unwrap_or(Path::new("/"));
            let mut above: Vec<&Path> = self.path.ancestors().skip(1).collect();
            above.retain(|path| path.starts_with(mount));
            for path in above.into_iter().rev() {
                // Fails where it is on already by other means; what counts is the setting below.
                let enabled = fs_err::write(
                    path.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
                tracing::trace!(controller, ?enabled, "hand down");
            }
            write(&self.directory, file, &value).map_err(|errno| {
                let message = format!("cannot limit {controller} in a cgroup of version 2");
                Error::caused(ErrorKind::Unsupported, message, errno)
            })?;
        }
        Ok(())
    }

    /// Returns the directory, to start a process in.
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Returns what its processes used, if the kernel tells.
    pub(crate) fn usage(&self) -> Option<CgroupUsage> {
        let text = read(&self.directory, "cpu.stat")?;
        Some(CgroupUsage {
            user_micros: field(&text, "user_usec")?,
            system_micros: field(&text, "system_usec")?,
        })
    }

    /// Returns whether the kernel killed a process of it for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        read(&self.directory, "memory.events")
            .and_then(|text| field(&text, "oom_kill"))
            .is_some_and(|count| count > 0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(errno) = remove(&self.path) {
            tracing::warn!(%errno, "cannot remove a cgroup");
        }
    }
}

impl Session {
    fn create(parent: Option<&str>) -> rustix::io::Result<Self> {
        let base = make_base(parent)?;
        let pid = std::process::id();
        for number in 0.. {
            let path = base.join(format!("{pid}.{number}"));
            match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
                // A dead process had the same id.
                Err(Errno::EXIST) => continue,
                made => made?,
            }
            let directory = open_directory(CWD, &path)?;
            rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
            // A sweep may have come before the lock.
            if rustix::fs::stat(&path).is_ok() {
                return Ok(Self {
                    directory,
                    path,
                    runs_count: 0,
                });
            }
        }
        Err(Errno::EXIST)
    }
}

/// Removes what larder processes that are dead left: kills their containers, removes their
/// cgroups.
pub fn sweep() {
    for base in bases(None) {
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
        // Absent before Linux 5.14: then the PID namespace's end is waited for.
        let killed = write(&directory, "cgroup.kill", "1");
        tracing::trace!(?killed, "kill");
        wait_until_empty(&directory);
    }
    Err(Errno::BUSY)
}

/// Waits for the last process of a cgroup to end, but no longer than [`REMOVAL_WAIT`].
fn wait_until_empty(directory: &OwnedFd) {
    let Some(mut events) = open_file(directory, "cgroup.events", OFlags::RDONLY) else {
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

/// Makes and returns the directory for sessions.
fn make_base(parent: Option<&str>) -> rustix::io::Result<PathBuf> {
    let mut refused = Errno::NOENT;
    for base in bases(parent) {
        match fs_err::create_dir_all(&base) {
            Ok(()) => return Ok(base),
            Err(error) => refused = Errno::from_io_error(&error).unwrap_or(Errno::IO),
        }
    }
    Err(refused)
}

/// Returns where sessions may lie: beneath the parent, or the root, or else, for who may not write
/// there, beneath larder's own cgroup.
fn bases(parent: Option<&str>) -> Vec<PathBuf> {
    let Some(mount) = mount_point() else {
        return Vec::new();
    };
    let below = |path: &str| mount.join(path.trim_start_matches('/')).join(DIRECTORY);
    if let Some(parent) = parent {
        return vec![below(parent)];
    }
    let mut bases = vec![below("")];
    bases.extend(own_cgroup().map(|path| below(&path)));
    bases.dedup();
    bases
}

/// Returns where the hierarchy of version 2 is mounted.
fn mount_point() -> Option<&'static Path> {
    static MOUNT_POINT: OnceLock<Option<PathBuf>> = OnceLock::new();
    MOUNT_POINT
        .get_or_init(|| {
            let mounts = fs_err::read_to_string("/proc/self/mountinfo").ok()?;
            let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
            line.split(' ').nth(4).map(PathBuf::from)
        })
        .as_deref()
}

/// Returns this process's cgroup.
fn own_cgroup() -> Option<String> {
    let cgroups = fs_err::read_to_string("/proc/self/cgroup").ok()?;
    cgroups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
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

fn read(directory: &OwnedFd, name: &str) -> Option<String> {
    let mut text = String::new();
    open_file(directory, name, OFlags::RDONLY)?
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

fn write(directory: &OwnedFd, name: &str, value: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    rustix::io::write(file, value.as_bytes())?;
    Ok(())
}

/// Returns the number behind `name` in lines of `name number`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|number| number.trim().parse().ok())
}
