//! The spawner: a small process that larder forks its containers from.
//!
//! larder itself is large and has threads, so copying it is slow and unsafe. The spawner is
//! started once, when the first process is to run: the same program again, which [`init`] turns
//! into it. It has one thread and little memory, so a fork costs some 0.1 ms, and ordinary code
//! can go on in the copy.
//!
//! It is the first process of a PID namespace that holds all containers: whatever kills it, kills
//! them. It learns of larder's end by the end of its socket, kills what still runs and removes
//! the cgroups.

pub(crate) mod failure;
mod helper;
pub(crate) mod protocol;
mod serve;

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{Error, ErrorKind, Result, mount, sys};

/// The first argument by which the program knows that it is to be the spawner.
const MARKER: &str = "larder-exec-spawner";

/// Whether [`init`] was called: a program that does not call it would run its own `main` in place
/// of the spawner.
static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// The running spawner.
static SPAWNER: Mutex<Option<Spawner>> = Mutex::new(None);

struct Spawner {
    pid: libc::pid_t,
    socket: OwnedFd,
}

/// Turns this process into the spawner if it was started as one, and never returns then.
///
/// Every program that calls [`run`](crate::run) must call this first thing in `main`, before it
/// starts threads, opens files or reads arguments.
pub fn init() {
    let mut args = std::env::args_os();
    match args.next() {
        Some(name) if name == MARKER => serve::main(),
        Some(name) if name == crate::rootless::MARKER => crate::rootless::map_ids(args),
        _ => INITIALIZED.store(true, Ordering::Relaxed),
    }
}

/// Ends the spawner, if one runs, and waits for it, so that its and its containers' use of the
/// processor counts as this process's children's. A later run starts another.
pub fn shutdown() {
    let spawner = SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(Spawner { pid, socket }) = spawner {
        crate::cgroup::close();
        drop(socket);
        let ended = sys::wait(pid);
        tracing::debug!(?ended, "spawner ended");
    }
}

/// Sends a request to the spawner, starting it if needed.
pub(crate) fn submit(header: protocol::Header, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = spawner.as_ref() {
        match protocol::send_parcel(running.socket.as_fd(), header, descriptors) {
            Ok(()) => return Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => {
                tracing::warn!("the spawner died, starting another");
                let ended = sys::wait(running.pid);
                tracing::debug!(?ended, "spawner ended");
            }
            Err(errno) => return Err(Error::system("cannot reach the spawner", errno)),
        }
    }
    let started = spawner.insert(start()?);
    protocol::send_parcel(started.socket.as_fd(), header, descriptors)
        .map_err(|errno| Error::system("cannot reach the spawner", errno))
}

fn start() -> Result<Spawner> {
    if !INITIALIZED.load(Ordering::Relaxed) {
        return Err(Error::new(
            ErrorKind::System,
            "`larder_exec::init` was not called at the start of `main`",
        ));
    }
    let system = |errno| Error::system("cannot start the spawner", errno);
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(system)?;
    let executable =
        executable().map_err(|errno| Error::system("cannot open larder's own program", errno))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(system)?;
    let args = [CString::new(MARKER).expect("a literal without NUL")];
    let env = environment();
    let pid = sys::spawn_in_pid_namespace(&executable, &theirs, &null, &args, &env)
        .map_err(|error| Error::system("cannot create a PID namespace", error))?;
    tracing::debug!(pid, "spawner started");
    Ok(Spawner { pid, socket: ours })
}

/// Returns this process's environment, as programs are given it.
fn environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut line = name.as_bytes().to_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            CString::new(line).ok()
        })
        .collect()
}

/// Opens this program, on a read-only mount of its own: a process in a container that reaches it
/// through `/proc/self/exe` then can't open it for writing (CVE-2019-5736).
fn executable() -> rustix::io::Result<OwnedFd> {
    const LINK: &str = "/proc/self/exe";
    let running = open_path(LINK)?;
    let mount = match mount::clone_of(&running) {
        // It was opened in another mount namespace: find it in this one.
        Err(Errno::INVAL) => {
            let path = rustix::fs::readlinkat(CWD, LINK, Vec::new())?;
            let found =
                rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let [one, other] = [rustix::fs::fstat(&running)?, rustix::fs::fstat(&found)?];
            if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
                return Err(Errno::STALE);
            }
            mount::clone_of(&found)?
        }
        cloned => cloned?,
    };
    sys::set_readonly(mount.as_fd(), true)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(mount)
}

/// Opens a path of this process's own for use as a directory handle only.
pub(crate) fn open_path(path: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
