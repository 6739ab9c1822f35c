//! A network namespace with the helper that serves it.

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::Helper;
use super::helper::Ready;
use crate::dns;
use crate::spawner;
use crate::spawner::protocol::{self, Header, HelperRequest, Report};
use crate::{Error, ErrorKind, Result, sys};

/// How long a helper may take until it is ready.
const READY_TIMEOUT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// How long it takes to hear of the end of one that is not, at most.
const END_TIMEOUT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// How much of what a helper said goes into an error.
const MAX_SAID_BYTES: u64 = 2 << 10;

/// A network namespace with the helper that serves it, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Namespace {
    descriptor: OwnedFd,
    /// Its other end is the spawner's: closing it ends the helper.
    socket: OwnedFd,
    helper: Helper,
    reaches_host: bool,
    /// Whether the helper answers for the host's name servers, and they can't be asked.
    forwards_names: bool,
    host_gateway: Option<String>,
}

impl Namespace {
    /// Makes a namespace, starts `program` for it and waits until it is ready.
    pub(super) fn create(helper: Helper, program: &Path, reaches_host: bool) -> Result<Self> {
        let failed = |errno: Errno| Error::system("cannot make a network", errno);
        let descriptor = new_namespace()
            .map_err(|error| Error::system("cannot make a network namespace", error))?;
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed)?;
        let (ready, told) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        // What it says goes to memory: nobody waits to read it.
        let said =
            rustix::fs::memfd_create(c"larder-helper", MemfdFlags::CLOEXEC).map_err(failed)?;
        let files = match helper.ready() {
            Ready::Stdout => vec![&descriptor, &told, &said],
            Ready::Fourth => vec![&descriptor, &said, &said, &told],
        };
        // The gateway, which may be the host's server, stands for the host itself.
        let forwards_names = reaches_host || dns::has_local_servers_only();
        let request = HelperRequest {
            program: program.to_owned(),
            args: helper.args(reaches_host, forwards_names),
        };
        let request = protocol::write_request(&request, &[])
            .map_err(|error| Error::system("cannot make a network", error))?;
        let mut parcel = vec![theirs.as_fd(), request.as_fd()];
        parcel.extend(files.into_iter().map(OwnedFd::as_fd));
        spawner::submit(Header::Helper, &parcel)?;
        drop(parcel);
        drop((theirs, told));
        if !is_ready(&ready, &socket) {
            return Err(refused(helper, &socket, said));
        }
        Ok(Self {
            descriptor,
            socket,
            helper,
            reaches_host,
            forwards_names,
            host_gateway: if reaches_host {
                helper.host_gateway()
            } else {
                None
            },
        })
    }

    pub(super) fn helper(&self) -> Helper {
        self.helper
    }

    pub(super) fn reaches_host(&self) -> bool {
        self.reaches_host
    }

    pub(super) fn forwards_names(&self) -> bool {
        self.forwards_names
    }

    pub(super) fn host_gateway(&self) -> Option<&str> {
        self.host_gateway.as_deref()
    }

    /// Returns the namespace.
    pub(super) fn descriptor(&self) -> Result<OwnedFd> {
        self.descriptor
            .try_clone()
            .map_err(|error| Error::system("cannot share a network", error))
    }

    /// Returns whether the helper still runs.
    pub(super) fn is_served(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        matches!(
            rustix::event::poll(&mut polled, Some(&Timespec::default())),
            Ok(0)
        )
    }
}

/// Makes a network namespace, in which the loopback interface is up.
fn new_namespace() -> std::io::Result<OwnedFd> {
    // A thread that goes at once: only it enters the namespace.
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(libc::CLONE_NEWNET)?;
            sys::loopback_up()?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let path = "/proc/thread-self/ns/net";
            Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
        });
        thread.join()
    });
    made.unwrap_or_else(|_| Err(Errno::IO.into()))
}

/// Waits until the helper says something on `ready`; returns whether it did so in time.
fn is_ready(ready: &OwnedFd, socket: &OwnedFd) -> bool {
    let mut polled = [
        PollFd::new(ready, PollFlags::IN),
        PollFd::new(socket, PollFlags::IN),
    ];
    loop {
        match rustix::event::poll(&mut polled, Some(&READY_TIMEOUT)) {
            Err(Errno::INTR) => {}
            Err(_) | Ok(0) => return false,
            Ok(_) => break,
        }
    }
    // At its end nothing can be read.
    polled[0].revents().contains(PollFlags::IN)
        && matches!(rustix::io::read(ready, &mut [0; 1][..]), Ok(1))
}

/// Returns why a helper is not ready: what the spawner or it itself says.
fn refused(helper: Helper, socket: &OwnedFd, said: OwnedFd) -> Error {
    let name = helper.name();
    let unsupported = |message| Error::new(ErrorKind::Unsupported, message);
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    let report = match rustix::event::poll(&mut polled, Some(&END_TIMEOUT)) {
        Ok(1) => protocol::receive_report(socket.as_fd()).ok().flatten(),
        _ => return unsupported(format!("`{name}` was not ready in time")),
    };
    if let Some(Report::Failed(failure)) = report {
        return unsupported(failure.into_error().to_string());
    }
    let mut text = String::new();
    let read = rustix::fs::seek(&said, SeekFrom::Start(0)).map(|_| {
        let said = std::fs::File::from(said);
        said.take(MAX_SAID_BYTES).read_to_string(&mut text)
    });
    tracing::debug!(?read, text, "helper");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_beside_the_point = |line: &&str| line.contains("syslog") || line.starts_with("WARNING");
    let last = lines.rev().find(|line| !is_beside_the_point(line));
    unsupported(match last {
        Some(line) => format!("`{name}`: {line}"),
        None => format!("`{name}` failed"),
    })
}
