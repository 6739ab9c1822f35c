//! The way from a forked copy of the spawner to the user's process.

mod beneath;
mod command;
mod devices;
mod identity;
mod mounts;

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::thread::LinkNameSpaceType;

use crate::seccomp::Instruction;
use crate::spawner::failure::{Failure, Stage};
use crate::spawner::protocol::{self, Report, Request, RequestNetwork};
use crate::sys;

use beneath::Builder;
pub(crate) use beneath::remove_stubs;
pub(crate) use identity::resource;

/// Becomes the process that `request` describes. Returns only if that fails, which it has told on
/// `socket`.
pub(crate) fn enter(
    socket: &OwnedFd,
    request: &OwnedFd,
    descriptors: &[OwnedFd],
    legacy_cgroups: &[OwnedFd],
    filter: &[Instruction],
) {
    let joined = legacy_cgroups.iter().try_for_each(join);
    if let Err(errno) = joined {
        let failure = Failure::new(Stage::Namespaces, "", errno);
        return protocol::send_report(socket.as_fd(), &Report::Failed(failure));
    }
    let failure = match protocol::read_request(request) {
        Ok((request, files)) => become_process(socket, &request, &files, descriptors, filter),
        Err(error) => Failure::new(Stage::Request, "", error),
    };
    protocol::send_report(socket.as_fd(), &Report::Failed(failure));
}

/// Moves this process into a cgroup of version 1.
fn join(cgroup: &OwnedFd) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let processes = rustix::fs::openat(cgroup, "cgroup.procs", flags, Mode::empty())?;
    rustix::io::write(processes, b"0").map(drop)
}

/// Does the work of [`enter`]; returns why it failed.
fn become_process(
    socket: &OwnedFd,
    request: &Request,
    files: &[u8],
    descriptors: &[OwnedFd],
    filter: &[Instruction],
) -> Failure {
    let root = &descriptors[request.root];
    let mut builder = Builder::new(root.as_fd());
    let prepared = prepare(request, files, descriptors, &mut builder);
    // Told before the process runs, and even if it never will: they are to be removed.
    let stubs = builder.into_stubs();
    if !stubs.is_empty() {
        protocol::send_report(socket.as_fd(), &Report::Stubs(stubs));
    }
    let execute = || {
        prepared?;
        if request.readonly_root {
            sys::set_readonly(root.as_fd(), false)
                .map_err(|error| Failure::new(Stage::Root, "/", error))?;
        }
        enter_root(root)?;
        enter_directory(&request.cwd)?;
        identity::set_limits(&request.rlimits)?;
        connect(request, descriptors)?;
        // Before capabilities go: afterwards it would need "no new privileges".
        if !request.insecure {
            sys::load_filter(filter).map_err(|error| Failure::new(Stage::Filter, "", error))?;
        }
        identity::assume(request)?;
        Err(command::execute(&request.args, &request.env))
    };
    let result: Result<std::convert::Infallible, Failure> = execute();
    match result {
        Err(failure) => failure,
        Ok(never) => match never {},
    }
}

/// Sets up namespaces and the tree of mounts.
fn prepare(
    request: &Request,
    files: &[u8],
    descriptors: &[OwnedFd],
    builder: &mut Builder<'_>,
) -> Result<(), Failure> {
    // Its own session: it gets no signals from a terminal.
    rustix::process::setsid().map_err(|errno| Failure::new(Stage::Host, "a session", errno))?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    if request.own_cgroup {
        sys::unshare(libc::CLONE_NEWCGROUP)
            .map_err(|error| Failure::new(Stage::Namespaces, "", error))?;
    }
    rustix::system::sethostname(request.hostname.as_bytes())
        .map_err(|errno| Failure::new(Stage::Host, "the host name", errno))?;
    match request.network {
        RequestNetwork::Shared => {}
        RequestNetwork::New => sys::loopback_up()
            .map_err(|error| Failure::new(Stage::Host, "the loopback interface", error))?,
        RequestNetwork::Joined(index) => rustix::thread::move_into_link_name_space(
            descriptors[index].as_fd(),
            Some(LinkNameSpaceType::Network),
        )
        .map_err(|errno| Failure::new(Stage::Host, "the network", errno))?,
    }
    mounts::set_up(request, files, descriptors, builder)
}

/// Makes the mount `root`, which is attached on top of the root directory, the root, and lets go of
/// all else.
fn enter_root(root: &OwnedFd) -> Result<(), Failure> {
    let failed = |errno| Failure::new(Stage::Root, "", errno);
    rustix::process::fchdir(root).map_err(failed)?;
    match rustix::process::pivot_root(".", ".") {
        // The old root now lies on top of the new one.
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed)?,
        // The root of the namespace itself, as in an initramfs, can't be moved. It is covered by
        // `root`, and nothing is above it that `..` could lead to.
        Err(Errno::INVAL) => rustix::process::chroot(".").map_err(failed)?,
        Err(errno) => return Err(failed(errno)),
    }
    rustix::process::chdir("/").map_err(failed)
}

/// Enters the working directory; before becoming the user, who may have no right to.
fn enter_directory(cwd: &str) -> Result<(), Failure> {
    rustix::process::chdir(cwd).map_err(|errno| Failure::new(Stage::WorkingDirectory, cwd, errno))
}

/// Connects the standard streams.
fn connect(request: &Request, descriptors: &[OwnedFd]) -> Result<(), Failure> {
    let streams = request.stdio.map(|index| descriptors[index].as_fd());
    sys::set_first_files(&streams)
        .map_err(|error| Failure::new(Stage::Host, "standard streams", error))
}

/// The flags to open a path as a handle only.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
