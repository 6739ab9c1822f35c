//! The spawner's own side.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use rustix::process::Signal;

use super::failure::{Failure, Stage};
use super::helper;
use super::protocol::{self, Ended, Header, Parcel, Report};
use crate::seccomp::{self, Instruction};
use crate::sys::{self, Forked};
use crate::{cgroup, container};

/// A container's first process, or a helper.
struct Running {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    /// `None` once larder has closed its end.
    socket: Option<OwnedFd>,
}

/// Remembers where larder's cgroups are, to remove them when it is gone.
#[derive(Default)]
struct Sessions(BTreeSet<PathBuf>);

impl Sessions {
    fn note(&mut self, cgroup: &OwnedFd) {
        let link = format!("/proc/self/fd/{}", cgroup.as_raw_fd());
        if let Ok(path) = fs_err::read_link(link)
            && let Some(session) = path.parent()
        {
            self.0.insert(session.to_owned());
        }
    }

    /// Removes them. Waits for the lock: larder's files are closed one after the other.
    fn remove(&self) {
        for session in &self.0 {
            let reclaimed = cgroup::reclaim(session, FlockOperation::LockExclusive);
            tracing::trace!(?session, ?reclaimed, "larder is gone");
        }
    }
}

/// Serves requests until larder is gone, and exits.
pub(super) fn main() -> ! {
    let Some(socket) = sys::take_socket() else {
        // Started by someone else under our name.
        std::process::exit(1);
    };
    sys::reset_signals();
    let named = rustix::thread::set_name(c"larder-spawner");
    // Its own session: signals to larder's process group, as from a terminal, pass it by.
    let session = rustix::process::setsid();
    tracing::trace!(?named, ?session, "spawner");
    // What need not be done for each container.
    let prepared = prepare();
    let filter = seccomp::default_filter();
    let mut running: Vec<Running> = Vec::new();
    let mut sessions = Sessions::default();
    loop {
        let (main_ready, ready) = wait(&socket, &running);
        for index in ready.into_iter().rev() {
            if attend(&mut running[index]) {
                running.swap_remove(index);
            }
        }
        if !main_ready {
            continue;
        }
        match protocol::receive_parcel(socket.as_fd()) {
            Ok(Some(parcel)) => running.extend(start(parcel, &prepared, &filter, &mut sessions)),
            Ok(None) | Err(_) => break,
        }
    }
    for container in &running {
        kill(container);
    }
    for container in &running {
        let ended = sys::wait(container.pid);
        tracing::trace!(?ended, "killed");
    }
    sessions.remove();
    std::process::exit(0)
}

/// Leaves larder's mount namespace for one in which containers' mounts stay.
fn prepare() -> Result<(), Failure> {
    sys::unshare(libc::CLONE_NEWNS).map_err(|error| Failure::new(Stage::Namespaces, "", error))?;
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", propagation).map_err(|errno| {
        let stage = match errno {
            // The root directory is no mount. A container in it could climb out of both roots:
            // whoever may call `chroot` can leave one that is not the namespace's own.
            Errno::INVAL => Stage::Chroot,
            _ => Stage::Namespaces,
        };
        Failure::new(stage, "", errno)
    })?;
    Ok(())
}

/// Waits for something to do: whether a request, and which containers.
fn wait(socket: &OwnedFd, running: &[Running]) -> (bool, Vec<usize>) {
    let mut polled = vec![PollFd::new(socket, PollFlags::IN)];
    let mut owners = Vec::new();
    for (index, container) in running.iter().enumerate() {
        polled.push(PollFd::new(&container.pidfd, PollFlags::IN));
        owners.push(index);
        if let Some(socket) = &container.socket {
            polled.push(PollFd::new(socket, PollFlags::IN));
            owners.push(index);
        }
    }
    if rustix::event::poll(&mut polled, None).is_err() {
        return (false, Vec::new());
    }
    let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
    let mut ready: Vec<usize> = polled[1..]
        .iter()
        .zip(owners)
        .filter_map(|(polled, owner)| is_ready(polled).then_some(owner))
        .collect();
    ready.dedup();
    (is_ready(&polled[0]), ready)
}

/// Passes on signals to a container, and tells of its end. Returns whether it has ended.
fn attend(container: &mut Running) -> bool {
    if let Some(socket) = &container.socket {
        let mut signals = [0; 16];
        match rustix::net::recv(
            socket,
            signals.as_mut_slice(),
            rustix::net::RecvFlags::DONTWAIT,
        ) {
            Ok((0, _)) | Err(Errno::CONNRESET) => {
                kill(container);
                container.socket = None;
            }
            Ok((count, _)) => {
                for signal in signals[..count].iter().copied() {
                    if let Some(signal) = Signal::from_named_raw(signal.into()) {
                        send_signal(container, signal);
                    }
                }
            }
            Err(_) => {}
        }
    }
    let mut polled = [PollFd::new(&container.pidfd, PollFlags::IN)];
    let now = rustix::event::Timespec::default();
    if !matches!(rustix::event::poll(&mut polled, Some(&now)), Ok(1)) {
        return false;
    }
    let report = match sys::wait(container.pid) {
        Ok(waited) => Report::Exited(ended(&waited)),
        Err(error) => Report::Failed(Failure::new(Stage::Namespaces, "", error)),
    };
    if let Some(socket) = &container.socket {
        protocol::send_report(socket.as_fd(), &report);
    }
    true
}

fn ended(waited: &sys::Waited) -> Ended {
    let micros =
        |time: libc::timeval| time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_usec as u64;
    Ended {
        status: waited.status,
        user_micros: micros(waited.usage.ru_utime),
        system_micros: micros(waited.usage.ru_stime),
        max_rss_bytes: waited.usage.ru_maxrss.cast_unsigned() * 1024,
    }
}

fn kill(container: &Running) {
    send_signal(container, Signal::KILL);
}

fn send_signal(container: &Running, signal: Signal) {
    // It may have just ended.
    let sent = rustix::process::pidfd_send_signal(&container.pidfd, signal);
    tracing::trace!(?sent, ?signal, "signal");
}

/// Starts a container or a helper. Failures are told on its socket, which is then closed.
fn start(
    parcel: Parcel,
    prepared: &Result<(), Failure>,
    filter: &[Instruction],
    sessions: &mut Sessions,
) -> Option<Running> {
    let mut descriptors = parcel.descriptors.into_iter();
    let socket = descriptors.next()?;
    let refuse = |failure: Failure| {
        protocol::send_report(socket.as_fd(), &Report::Failed(failure));
        None
    };
    if let Err(failure) = prepared {
        return refuse(failure.clone());
    }
    let request = descriptors.next()?;
    let (mut unified, mut legacy) = (None, Vec::new());
    let mut namespaces = 0;
    if let Header::Container {
        new_network,
        own_cgroup,
        legacy_cgroups,
    } = parcel.header
    {
        namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if new_network {
            namespaces |= libc::CLONE_NEWNET;
        }
        if own_cgroup {
            unified = Some(descriptors.next()?);
        }
        legacy.extend(descriptors.by_ref().take(usize::from(legacy_cgroups)));
    }
    for cgroup in unified.iter().chain(&legacy) {
        sessions.note(cgroup);
    }
    match sys::fork(namespaces, unified.as_ref().map(|cgroup| cgroup.as_fd())) {
        Ok(Forked::Child) => {
            let descriptors: Vec<OwnedFd> = descriptors.collect();
            // A panic must not unwind into the loop above: there would be two spawners.
            let entered = catch_unwind(AssertUnwindSafe(|| match parcel.header {
                Header::Container { .. } => {
                    container::enter(&socket, &request, &descriptors, &legacy, filter);
                }
                Header::Helper => helper::become_program(&socket, &request, &descriptors),
            }));
            sys::exit_now(if entered.is_ok() { 1 } else { 101 })
        }
        Ok(Forked::Parent { pid, pidfd }) => Some(Running {
            pid,
            pidfd,
            socket: Some(socket),
        }),
        Err(error) => refuse(Failure::new(Stage::Namespaces, "", error)),
    }
}
