//! What is known of the services of a project, below the state directory:
//!
//! ```text
//! compose/PROJECT/lock               held while services are started, stopped or removed
//! compose/PROJECT/services/SERVICE/
//!   lock                             held by the service's supervisor for its life
//!   spec.json                        what the service is
//!   record                           what has become of it
//!   log                              what it wrote
//! ```
//!
//! Locks are `flock`s: they go with their process. A record that says `running` beneath a free
//! lock is that of a supervisor that was killed, and its container with it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::spec::Spec;

/// The directory of all projects, below the state directory.
const PROJECTS: &str = "compose";
/// What a service whose supervisor was killed has as its exit code: that of SIGKILL.
const KILLED: i32 = 137;

/// What has become of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The supervisor.
    pub(super) pid: u32,
    pub(super) status: Status,
    pub(super) started_at: Timestamp,
    pub(super) health: Option<Health>,
    /// How often it was started again.
    pub(super) restarts: u32,
}

/// Where in its life a service is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    Starting,
    Running,
    Exited(i32),
    /// It could not be started.
    Failed(String),
}

/// What health checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

impl Health {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starting => "health: starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A project's directory.
#[derive(Debug, Clone)]
pub(super) struct ProjectState(PathBuf);

impl ProjectState {
    /// Returns that of `project` below the state directory `root`.
    pub(super) fn new(root: &Path, project: &str) -> Self {
        Self(root.join(PROJECTS).join(project))
    }

    /// Waits until no other command starts or stops services of the project. Held until dropped.
    pub(super) fn lock(&self) -> anyhow::Result<File> {
        create_private(&self.0)?;
        let file = File::create(self.0.join("lock")).context("cannot lock the project")?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .context("cannot lock the project")?;
        Ok(file)
    }

    pub(super) fn service(&self, name: &str) -> ServiceState {
        ServiceState(self.services_directory().join(name))
    }

    fn services_directory(&self) -> PathBuf {
        self.0.join("services")
    }

    /// Returns the services that were ever started and not removed, by name.
    pub(super) fn services(&self) -> io::Result<Vec<(String, ServiceState)>> {
        let names = directories(&self.services_directory())?;
        let services = names.into_iter().map(|name| {
            let state = self.service(&name);
            (name, state)
        });
        Ok(services.collect())
    }

    /// Removes the directory, if no service is left.
    pub(super) fn remove_if_empty(&self) -> io::Result<()> {
        if self.services()?.is_empty() {
            match fs_err::remove_dir_all(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A service's directory.
#[derive(Debug, Clone)]
pub(super) struct ServiceState(PathBuf);

impl ServiceState {
    /// Returns that at `directory`.
    pub(super) fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Opens the log, to write at its end.
    pub(super) fn open_log(&self) -> io::Result<File> {
        File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.log())
    }

    /// Makes the directory for a new container of a service.
    pub(super) fn create(&self, spec: &Spec) -> anyhow::Result<()> {
        self.remove()?;
        create_private(&self.0)?;
        write(&self.0.join("spec.json"), &serde_json::to_vec_pretty(spec)?)?;
        self.open_log().context("cannot make the log")?;
        Ok(())
    }

    /// Returns what the service is; `None` if it is not there, or was written by another version.
    pub(super) fn spec(&self) -> Option<Spec> {
        let bytes = fs_err::read(self.0.join("spec.json")).ok()?;
        let spec: Spec = serde_json::from_slice(&bytes).ok()?;
        (spec.format == Spec::FORMAT).then_some(spec)
    }

    /// Takes the supervisor's lock, for its life.
    pub(super) fn acquire(&self) -> io::Result<File> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.lock())?;
        // Whoever looks whether it is free holds it for a moment.
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// Returns whether the supervisor lives.
    pub(super) fn is_live(&self) -> bool {
        let Ok(file) = File::open(self.lock()) else {
            return false;
        };
        let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
        matches!(taken, Err(Errno::WOULDBLOCK))
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(super) fn write_record(&self, record: &Record) -> anyhow::Result<()> {
        write(&self.0.join("record"), &serde_json::to_vec(record)?)
    }

    /// Forgets what became of an earlier run.
    pub(super) fn remove_record(&self) -> io::Result<()> {
        match fs_err::remove_file(self.0.join("record")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns what has become of the service; `None` if nothing is known.
    pub(super) fn record(&self) -> Option<Record> {
        let is_live = self.is_live();
        let bytes = fs_err::read(self.0.join("record")).ok()?;
        let mut record: Record = serde_json::from_slice(&bytes).ok()?;
        if !is_live && matches!(record.status, Status::Starting | Status::Running) {
            record.status = Status::Exited(KILLED);
        }
        Some(record)
    }

    /// Sends a signal to the supervisor. Returns whether it lives.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        let Some(record) = self.record() else {
            return false;
        };
        let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
        let Some(pidfd) =
            pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            return false;
        };
        // The process that was opened is the supervisor only if its lock is still held.
        if !self.is_live() {
            return false;
        }
        rustix::process::pidfd_send_signal(&pidfd, signal).is_ok()
    }

    /// Removes all that is known of the service.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        ensure!(!self.is_live(), "the service is running");
        match fs_err::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Makes a directory for its owner alone: environments hold passwords.
fn create_private(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context("cannot make a directory for the project's state")
}

/// Writes a file so that readers see all of it, or its old content.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}

fn directories(path: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}
