//! What travels between larder and its spawner.
//!
//! On the spawner's socket: one packet for each process to start, of [`Header`] bytes, with the
//! descriptors of [`Parcel`]. On the process's own socket: to larder, [`Report`]s; from larder, one
//! byte for each signal to send. Closing that socket kills the process.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The most descriptors that one packet can carry (the kernel's `SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

/// The most mounts of one process: what is left beside the descriptors that each needs.
pub(crate) const MAX_MOUNTS: usize = 240;

/// The longest [`Report`]: stubs are bounded by the mounts and the depth of their targets.
const MAX_REPORT_BYTES: usize = 128 << 10;

/// All that a process is made of. Descriptors are indices into those that came along.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) hostname: String,
    pub(crate) network: RequestNetwork,
    pub(crate) own_cgroup: bool,
    /// Whether nothing is kept from it.
    pub(crate) insecure: bool,
    /// Whether mounts must keep it from using device nodes, since nothing else does.
    pub(crate) hides_devices: bool,
    pub(crate) devices: Vec<RequestDevice>,
    /// `(resource, soft, hard)`.
    pub(crate) rlimits: Vec<(Rlimit, Option<u64>, Option<u64>)>,
    pub(crate) shm_bytes: u64,
    pub(crate) mounts: Vec<RequestMount>,
    pub(crate) stdio: [usize; 3],
    pub(crate) root: usize,
    pub(crate) readonly_root: bool,
}

/// A resource: its `RLIMIT_*` name in lower case.
pub(crate) type Rlimit = String;

/// The network of a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RequestNetwork {
    /// The host's.
    Shared,
    /// A new one.
    New,
    /// The namespace behind a descriptor.
    Joined(usize),
}

/// A device node of a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestDevice {
    pub(crate) path: String,
    pub(crate) host_path: PathBuf,
    /// The type of file, as in `st_mode`, and the permission bits.
    pub(crate) mode: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A program to run beside the containers. Its descriptors are its first open files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HelperRequest {
    pub(crate) program: PathBuf,
    /// With the program's name.
    pub(crate) args: Vec<String>,
}

/// A mount of a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestMount {
    pub(crate) target: String,
    pub(crate) source: RequestSource,
    pub(crate) readonly: bool,
}

/// What a [`RequestMount`] shows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RequestSource {
    /// The mount behind a descriptor.
    Descriptor(usize),
    /// An empty directory.
    Tmpfs { size_bytes: Option<u64> },
    /// A file with these bytes of what follows the request.
    File {
        start: usize,
        end: usize,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// What becomes of a process, as told on its socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Mount points that were made for it, outermost first, relative to the root.
    Stubs(Vec<String>),
    /// It could not be started.
    Failed(Failure),
    /// It ended, and with it all it started.
    Exited(Ended),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// As `wait` gives it.
    pub(crate) status: i32,
    /// Time on a processor in user mode.
    pub(crate) user_micros: u64,
    /// Time on a processor in the kernel.
    pub(crate) system_micros: u64,
    /// The most memory of one of its processes.
    pub(crate) max_rss_bytes: u64,
}

/// What the spawner itself must know of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Header {
    /// A [`Request`].
    Container {
        new_network: bool,
        /// Whether it has a cgroup of version 2.
        own_cgroup: bool,
        /// How many of version 1.
        legacy_cgroups: u8,
    },
    /// A [`HelperRequest`].
    Helper,
}

impl Header {
    fn to_bytes(self) -> [u8; 4] {
        match self {
            Self::Helper => [0; 4],
            Self::Container {
                new_network,
                own_cgroup,
                legacy_cgroups,
            } => [
                1,
                u8::from(new_network),
                u8::from(own_cgroup),
                legacy_cgroups,
            ],
        }
    }

    fn from_bytes(bytes: [u8; 4]) -> Self {
        match bytes {
            [0, ..] => Self::Helper,
            [_, new_network, own_cgroup, legacy_cgroups] => Self::Container {
                new_network: new_network != 0,
                own_cgroup: own_cgroup != 0,
                legacy_cgroups,
            },
        }
    }
}

/// The descriptors of a packet: socket, request, the cgroups if there are any, then the request's.
pub(crate) struct Parcel {
    pub(crate) header: Header,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Sends a packet to the spawner.
pub(crate) fn send_parcel(
    socket: BorrowedFd<'_>,
    header: Header,
    descriptors: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::TOOBIG);
    }
    let bytes = header.to_bytes();
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[std::io::IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// Receives a packet; `None` when the other side is gone.
pub(crate) fn receive_parcel(socket: BorrowedFd<'_>) -> rustix::io::Result<Option<Parcel>> {
    let mut bytes = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [std::io::IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(Some(Parcel {
        header: Header::from_bytes(bytes),
        descriptors,
    }))
}

/// Tells larder what became of a process. A larder that is gone is not told.
pub(crate) fn send_report(socket: BorrowedFd<'_>, report: &Report) {
    if let Ok(bytes) = serde_json::to_vec(report) {
        let sent = rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL);
        tracing::trace!(?sent, "report");
    }
}

/// Receives a report; `None` when the spawner is gone.
pub(crate) fn receive_report(socket: BorrowedFd<'_>) -> std::io::Result<Option<Report>> {
    let mut bytes = vec![0; MAX_REPORT_BYTES];
    let (length, _) = rustix::io::retry_on_intr(|| {
        rustix::net::recv(socket, bytes.as_mut_slice(), RecvFlags::empty())
    })?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&bytes[..length])?))
}

/// Writes a request, and the bytes of its files, to a file in memory.
pub(crate) fn write_request(request: &impl Serialize, files: &[u8]) -> std::io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(c"larder-request", rustix::fs::MemfdFlags::CLOEXEC)?;
    let json = serde_json::to_vec(request)?;
    let mut file = fs_err::File::from_parts(memory.into(), "request");
    let mut all = (json.len() as u64).to_le_bytes().to_vec();
    all.extend_from_slice(&json);
    all.extend_from_slice(files);
    std::io::Write::write_all(&mut file, &all)?;
    Ok(file.into_parts().0.into())
}

/// Reads what [`write_request`] wrote.
pub(crate) fn read_request<T: DeserializeOwned>(
    memory: impl AsFd,
) -> std::io::Result<(T, Vec<u8>)> {
    let mut file = std::fs::File::from(memory.as_fd().try_clone_to_owned()?);
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut json = vec![0; u64::from_le_bytes(length) as usize];
    file.read_exact(&mut json)?;
    let mut files = Vec::new();
    file.read_to_end(&mut files)?;
    Ok((serde_json::from_slice(&json)?, files))
}
