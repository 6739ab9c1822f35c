//! Running one process: larder's side.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::cgroup::{Access, Cgroups, Demand};
use crate::container;
use crate::spawner::protocol::{self, Ended, Header, Report, RequestNetwork};
use crate::spawner::{self, failure::Failure};
use crate::{Cancel, Error, ErrorKind, ProcessSpec, Result, Stdio};

mod request;

/// How much output is taken at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a process wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a process ended, and what it used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub outcome: Outcome,
    /// What it and all it started used.
    pub usage: Usage,
    /// Whether a process was killed for want of memory; false where the kernel does not tell.
    pub oom_killed: bool,
    /// Limits, and the cgroup, that could not be had, each with why.
    pub unmet: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with a code.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
    /// Because it was canceled.
    Canceled,
}

/// What a run used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor in user mode.
    pub user_time: Duration,
    /// Time on a processor in the kernel.
    pub system_time: Duration,
    /// The most memory of one of its processes, in bytes.
    pub max_rss_bytes: u64,
}

/// Runs a process to its end, and hands out what it writes, in pieces as they come.
///
/// Blocks. When this returns, the process and all it started are gone, and so are the mounts, the
/// cgroup and the mount points that were made for it.
///
/// # Errors
/// [`ErrorKind::Command`] if the command cannot be executed; [`ErrorKind::Input`] if `spec` is at
/// fault; [`ErrorKind::Unsupported`] if this kernel or user can't run it so.
pub fn run(
    spec: ProcessSpec,
    output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<Exit> {
    let system = |errno| Error::system("cannot start a process", errno);
    let prepared = request::prepare(spec)?;
    let mut cgroups = Cgroups::create(&Demand {
        parent: prepared.cgroup_parent.as_deref(),
        limits: &prepared.limits,
        devices: prepared.access.clone(),
    })?;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(system)?;
    let streams = Streams::create(prepared.stdio, prepared.owner).map_err(system)?;
    let mut request = prepared.request;
    request.own_cgroup = cgroups.unified().is_some();
    request.hides_devices = prepared.access != Access::All && !cgroups.confines_devices();

    let mut travelling: Vec<BorrowedFd<'_>> =
        prepared.descriptors.iter().map(OwnedFd::as_fd).collect();
    let first = travelling.len();
    travelling.extend(streams.inner.iter().map(OwnedFd::as_fd));
    request.stdio = [first, first + 1, first + 2];
    let memory = protocol::write_request(&request, &prepared.files)
        .map_err(|error| Error::system("cannot start a process", error))?;
    let mut parcel = vec![theirs.as_fd(), memory.as_fd()];
    parcel.extend(cgroups.unified());
    parcel.extend(cgroups.legacy().map(OwnedFd::as_fd));
    parcel.extend(travelling);
    let header = Header::Container {
        new_network: request.network == RequestNetwork::New,
        own_cgroup: request.own_cgroup,
        legacy_cgroups: cgroups.legacy().count() as u8,
    };
    spawner::submit(header, &parcel)?;
    drop(parcel);
    drop(theirs);
    let root = &prepared.descriptors[request.root];
    let root = prepared.writable_root.as_ref().unwrap_or(root);
    let watched = Watched {
        socket: ours,
        stdout: streams.stdout,
        stderr: streams.stderr,
        signals: prepared.signals,
    };
    // The container's ends must be its own only, for the streams to end with it.
    drop(streams.inner);
    let story = watched.follow(output, cancel);
    container::remove_stubs(root.as_fd(), &story.stubs);
    drop(prepared.own_network);
    story.conclude(&mut cgroups)
}

/// The standard streams of a process.
struct Streams {
    /// Its own ends: input, output, error.
    inner: [OwnedFd; 3],
    /// Our ends, if output is captured.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Streams {
    fn create(stdio: Stdio, owner: (u32, u32)) -> rustix::io::Result<Self> {
        let pipe = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
            let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
            // So that the process can open `/dev/stdout`. Ids that are not mapped can't.
            let given = rustix::fs::fchown(
                &theirs,
                Some(rustix::fs::Uid::from_raw(owner.0)),
                Some(rustix::fs::Gid::from_raw(owner.1)),
            );
            tracing::trace!(?given, "pipe");
            Ok((ours, theirs))
        };
        Ok(match stdio {
            Stdio::Files {
                stdin,
                stdout,
                stderr,
            } => Self {
                inner: [stdin, stdout, stderr],
                stdout: None,
                stderr: None,
            },
            Stdio::Captured => {
                let (stdout, inner_stdout) = pipe()?;
                let (stderr, inner_stderr) = pipe()?;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
                Self {
                    inner: [null, inner_stdout, inner_stderr],
                    stdout: Some(stdout),
                    stderr: Some(stderr),
                }
            }
        })
    }
}

/// What is watched while a process runs.
struct Watched {
    socket: OwnedFd,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    signals: Option<OwnedFd>,
}

/// What became of a process.
#[derive(Default)]
struct Story {
    stubs: Vec<String>,
    failure: Option<Failure>,
    ended: Option<Ended>,
    canceled: bool,
}

impl Watched {
    /// Hands out output, and cancels, until the process has ended or could not be started.
    fn follow(mut self, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Story {
        let mut story = Story::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let ready = self.wait(cancel, story.canceled);
            if ready.stdout {
                drain(&mut self.stdout, Stream::Stdout, &mut buffer, output);
            }
            if ready.stderr {
                drain(&mut self.stderr, Stream::Stderr, &mut buffer, output);
            }
            if ready.signals {
                self.pass_on_signals();
            }
            if ready.cancel {
                story.canceled = true;
                self.send_signals(&[libc::SIGKILL as u8]);
            }
            if ready.socket && !self.hear(&mut story) {
                break;
            }
        }
        // All writers are gone, but for files handed outside: what is there now is all.
        drain(&mut self.stdout, Stream::Stdout, &mut buffer, output);
        drain(&mut self.stderr, Stream::Stderr, &mut buffer, output);
        story
    }

    /// Passes on what the caller signals, until it closes its end.
    fn pass_on_signals(&mut self) {
        let Some(pipe) = &self.signals else { return };
        let mut signals = [0; 16];
        match rustix::io::read(pipe, &mut signals) {
            Ok(0) => self.signals = None,
            Ok(count) => self.send_signals(&signals[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => {
                tracing::warn!(%errno, "signals are lost");
                self.signals = None;
            }
        }
    }

    /// Has the spawner send signals. The process may have just ended.
    fn send_signals(&self, signals: &[u8]) {
        let sent = rustix::net::send(&self.socket, signals, SendFlags::NOSIGNAL);
        tracing::debug!(?sent, ?signals, "signals");
    }

    /// Takes a report; returns whether there is more to come.
    fn hear(&self, story: &mut Story) -> bool {
        match protocol::receive_report(self.socket.as_fd()) {
            Ok(Some(Report::Stubs(stubs))) => story.stubs = stubs,
            Ok(Some(Report::Failed(failure))) => story.failure = Some(failure),
            Ok(Some(Report::Exited(ended))) => {
                story.ended = Some(ended);
                return false;
            }
            Ok(None) | Err(_) => return false,
        }
        true
    }

    fn wait(&self, cancel: &Cancel, canceled: bool) -> Ready {
        let mut polled = Vec::with_capacity(5);
        let mut meanings: Vec<fn(&mut Ready)> = Vec::with_capacity(5);
        polled.push(PollFd::new(&self.socket, PollFlags::IN));
        meanings.push(|ready| ready.socket = true);
        if let Some(stdout) = &self.stdout {
            polled.push(PollFd::new(stdout, PollFlags::IN));
            meanings.push(|ready| ready.stdout = true);
        }
        if let Some(stderr) = &self.stderr {
            polled.push(PollFd::new(stderr, PollFlags::IN));
            meanings.push(|ready| ready.stderr = true);
        }
        if let Some(signals) = &self.signals {
            polled.push(PollFd::new(signals, PollFlags::IN));
            meanings.push(|ready| ready.signals = true);
        }
        if !canceled {
            polled.push(PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN));
            meanings.push(|ready| ready.cancel = true);
        }
        let mut ready = Ready::default();
        // Interrupted by a signal: nothing is ready.
        if rustix::event::poll(&mut polled, None).is_ok() {
            for (polled, meaning) in polled.iter().zip(meanings) {
                if !polled.revents().is_empty() {
                    meaning(&mut ready);
                }
            }
        }
        ready
    }
}

/// What there is to attend to.
#[derive(Default)]
struct Ready {
    socket: bool,
    stdout: bool,
    stderr: bool,
    signals: bool,
    cancel: bool,
}

/// Hands out all that a pipe holds, and forgets it at its end.
fn drain(
    pipe: &mut Option<OwnedFd>,
    stream: Stream,
    buffer: &mut [u8],
    output: &mut dyn FnMut(Stream, &[u8]),
) {
    while let Some(open) = pipe {
        match rustix::io::read(&*open, &mut *buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => output(stream, &buffer[..count]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return,
            Err(errno) => {
                tracing::warn!(%errno, ?stream, "output is lost");
                *pipe = None;
            }
        }
    }
}

impl Story {
    fn conclude(self, cgroups: &mut Cgroups) -> Result<Exit> {
        if let Some(failure) = self.failure {
            return Err(failure.into_error());
        }
        let ended = self
            .ended
            .ok_or_else(|| Error::new(ErrorKind::System, "the spawner died"))?;
        let (user_micros, system_micros) = match cgroups.usage() {
            Some(usage) => (usage.user_micros, usage.system_micros),
            None => (ended.user_micros, ended.system_micros),
        };
        let outcome = if self.canceled {
            Outcome::Canceled
        } else if libc::WIFSIGNALED(ended.status) {
            Outcome::Signaled(libc::WTERMSIG(ended.status))
        } else {
            Outcome::Exited(libc::WEXITSTATUS(ended.status))
        };
        Ok(Exit {
            outcome,
            usage: Usage {
                user_time: Duration::from_micros(user_micros),
                system_time: Duration::from_micros(system_micros),
                max_rss_bytes: ended.max_rss_bytes,
            },
            oom_killed: cgroups.oom_killed(),
            unmet: cgroups.take_unmet(),
        })
    }
}
