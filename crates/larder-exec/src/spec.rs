use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::network::OwnNetwork;

/// One process to run, and all it sees.
///
/// Descriptors given here are consumed by the run.
#[derive(Debug)]
pub struct ProcessSpec {
    /// The command; the first word is looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// The environment, each `NAME=value`, in order. Nothing is added to it.
    pub env: Vec<String>,
    /// The working directory, absolute; created with mode 0755, owned by the user, if absent.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// The host's name inside.
    pub hostname: String,
    /// The root filesystem: a detached mount, as from [`mount::open`](crate::mount::open).
    pub root: OwnedFd,
    /// Whether the process may not write to the root filesystem; other mounts lie in it all the
    /// same.
    pub readonly_root: bool,
    /// Further mounts, in order: later ones may lie in earlier ones.
    pub mounts: Vec<MountPoint>,
    /// What it can reach.
    pub network: Network,
    /// How it is confined.
    pub security: Security,
    /// Device nodes beside those that every process has.
    pub devices: Vec<Device>,
    /// Limits to set; those not named are inherited from this process.
    pub ulimits: Vec<Ulimit>,
    /// The size of `/dev/shm`.
    pub shm_bytes: u64,
    /// Lines to add to `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// The content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The cgroup, relative to the root of the hierarchy, to run in a child of. `None` for
    /// larder's own.
    pub cgroup_parent: Option<String>,
    /// What it may use.
    pub limits: ResourceLimits,
    /// Its standard streams.
    pub stdio: Stdio,
    /// The reading end of a pipe: each byte in it is the number of a signal to send to the
    /// process, which as the first of its namespace gets only those that it handles, and `SIGKILL`.
    pub signals: Option<OwnedFd>,
}

impl ProcessSpec {
    /// The host name that BuildKit gives to every process.
    pub const HOSTNAME: &str = "buildkitsandbox";
    /// The default size of `/dev/shm`.
    pub const SHM_BYTES: u64 = 64 << 20;

    /// Returns a process that runs `args` in `root` as root, with everything else at its default.
    pub fn new(root: OwnedFd, args: Vec<String>) -> Self {
        Self {
            args,
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: User::default(),
            hostname: Self::HOSTNAME.to_owned(),
            root,
            readonly_root: false,
            mounts: Vec::new(),
            network: Network::Host,
            devices: Vec::new(),
            security: Security::Sandbox,
            ulimits: Vec::new(),
            shm_bytes: Self::SHM_BYTES,
            extra_hosts: Vec::new(),
            resolv_conf: String::new(),
            cgroup_parent: None,
            limits: ResourceLimits::default(),
            stdio: Stdio::Captured,
            signals: None,
        }
    }
}

/// Whom a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// The supplementary group ids.
    pub groups: Vec<u32>,
}

/// A mount below the root filesystem.
#[derive(Debug)]
pub struct MountPoint {
    /// Where, absolute; made for the time of the run if absent, with the parents it needs.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Whether writes are refused.
    pub readonly: bool,
}

/// What a [`MountPoint`] shows.
pub enum MountSource {
    /// A detached mount of a directory or a file, as from [`mount::bind`](crate::mount::bind).
    Bind(OwnedFd),
    /// An empty directory in memory.
    Tmpfs {
        /// Its size; `None` for the kernel's default, half of the memory.
        size_bytes: Option<u64>,
    },
    /// A file in memory.
    Secret {
        /// Its bytes.
        content: Vec<u8>,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl std::fmt::Debug for MountSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(fd) => f.debug_tuple("Bind").field(fd).finish(),
            Self::Tmpfs { size_bytes } => f
                .debug_struct("Tmpfs")
                .field("size_bytes", size_bytes)
                .finish(),
            // The content is nobody's business.
            Self::Secret { mode, uid, gid, .. } => f
                .debug_struct("Secret")
                .field("mode", mode)
                .field("uid", uid)
                .field("gid", gid)
                .finish_non_exhaustive(),
        }
    }
}

/// What a process can reach.
#[derive(Debug)]
pub enum Network {
    /// All that this machine can.
    Host,
    /// Itself only, over loopback.
    None,
    /// What a helper passes on; its loopback is its own.
    Own(OwnNetwork),
}

/// How a process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Default capabilities, system call filter, and devices.
    Sandbox,
    /// Not: it has all capabilities and system calls of whoever runs larder, `/sys` and cgroups take
    /// writes, nothing of `/proc` is hidden, and devices can be opened. In a user namespace that is
    /// power over what the namespace holds, and not over the machine.
    Insecure,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where, absolute.
    pub path: String,
    /// The host's node, shown where none can be made.
    pub host_path: PathBuf,
    /// What it leads to.
    pub kind: DeviceKind,
    /// The driver's number.
    pub major: u32,
    /// The device's number.
    pub minor: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Whether it may be read.
    pub can_read: bool,
    /// Whether it may be written.
    pub can_write: bool,
}

/// What a device node leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Blocks.
    Block,
    /// Characters.
    Character,
    /// A named pipe.
    Fifo,
}

/// A resource limit of POSIX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …: the lower-case end of `RLIMIT_*`.
    pub name: String,
    /// The limit in force; -1 for none.
    pub soft: i64,
    /// What the process may raise it to; -1 for no bound.
    pub hard: i64,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// The address.
    pub ip: String,
    /// The name.
    pub name: String,
}

/// What the processes of a run may use together. Needs cgroup controllers, of version 2 or 1; what
/// can't be limited is told in [`Exit::unmet`](crate::Exit::unmet).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together; -1 for no bound on swap.
    pub memory_swap_bytes: Option<i64>,
    /// The weight against other runs when processors are short; 1024 is the usual.
    pub cpu_shares: Option<u64>,
    /// The time on processors in each period; -1 for no bound.
    pub cpu_quota_micros: Option<i64>,
    /// The period; 100 ms by default.
    pub cpu_period_micros: Option<u64>,
    /// Processors that may be used, as in `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as in `0-1`.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids_count: Option<u64>,
}

/// Where the standard streams of a process lead.
#[derive(Debug)]
pub enum Stdio {
    /// Input is empty; output is handed to the caller of [`run`](crate::run).
    Captured,
    /// To these files.
    Files {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
}
