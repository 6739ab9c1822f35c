//! All that enters the kernel: detached mounts, namespaces, cgroups, confinement, and running one
//! process with them. It knows no images, no layers, no graph and no store; it is given descriptors
//! and plain data.
//!
//! - [`run`] runs the process of a [`ProcessSpec`] to its end, confined as BuildKit confines the
//!   steps of a build.
//! - [`mount`] makes detached mounts of snapshots, directories and memory.
//! - [`rootless`] makes an ordinary user root of a user namespace.
//! - [`network`] gives processes networks of their own, with outgoing access.
//! - [`probe`] tells what this kernel lets this user do.
//! - [`sweep`] removes what killed processes left.
//!
//! ```no_run
//! use larder_exec::{Cancel, ProcessSpec, Outcome, mount};
//!
//! fn main() -> larder_exec::Result<()> {
//!     larder_exec::init();
//!     let root = mount::bind("/srv/rootfs", mount::Access::ReadWrite)?;
//!     let spec = ProcessSpec::new(root, vec!["/bin/true".to_owned()]);
//!     let exit = larder_exec::run(spec, &mut |_, _| {}, &Cancel::new()?)?;
//!     assert_eq!(exit.outcome, Outcome::Exited(0));
//!     Ok(())
//! }
//! ```
//!
//! The process is started by a helper, the *spawner*: the same program again, which is why `main`
//! must begin with [`init`].
//!
//! **Limitations**: Linux 5.12 or later, on x86_64 and aarch64. Hierarchies of cgroup version 1
//! serve to limit resources; processes have no view of them. Networks of their own need `pasta` or
//! `slirp4netns`. Processes of foreign architectures are not known of. No SELinux labels, no
//! AppArmor profiles. In a container whose `/proc` is
//! partly hidden an ordinary user can run nothing: the kernel then refuses a new `/proc`.

mod cancel;
mod cgroup;
mod container;
mod dns;
mod error;
pub mod mount;
pub mod network;
pub mod probe;
pub mod rootless;
mod run;
mod seccomp;
mod spawner;
mod spec;
mod sys;

pub use cancel::Cancel;
pub use cgroup::sweep;
pub use dns::{DnsConfig, resolv_conf};
pub use error::{Error, ErrorKind, Result};
pub use run::{Exit, Outcome, Stream, Usage, run};
pub use spawner::{init, shutdown};
pub use spec::{
    Device, DeviceKind, ExtraHost, MountPoint, MountSource, Network, ProcessSpec, ResourceLimits,
    Security, Stdio, Ulimit, User,
};
