//! Development only: what larder's tests, demo and benchmarks stand on.
//!
//! - [`Base`] makes the base images from Debian's packages, once, below `target/bases/`.
//! - [`Scratch`] is a temporary folder for one test; [`write_tree`] fills a build context.
//! - [`Larder`] runs the real binary on a state root of its own and checks what it said.
//! - [`Project`] joins these: a context and a state root with a base image; [`Run::step`] reads what
//!   a build told of a [`Step`].
//! - [`Registry`] is Debian's `docker-registry` on a free loopback port; [`FaultProxy`] stands before
//!   it, breaks what a test wants broken, and counts requests and bytes.
//! - [`WebServer`] answers requests as a test tells it to, and keeps them.
//! - [`MadeImage`] is an image with layers of a test's own making, hostile ones too.
//! - [`OciArchive`] reads what larder wrote, by another implementation of tar than larder's.
//! - [`GitRepository`] is a git repository of a test's own making, [`GitServer`] serves them over http.
//! - [`User`], [`SmallDisk`] and [`kill_after`] make the hard cases: no root, no space, no warning.
//!
//! A test that can't run here says so with [`skip!`]:
//!
//! ```no_run
//! use larder_testkit::{Base, skip};
//!
//! fn builds_on_busybox() {
//!     let archive = match Base::Busybox.archive() {
//!         Ok(archive) => archive,
//!         Err(error) => skip!("no base image: {error:#}"),
//!     };
//!     assert!(archive.exists());
//! }
//! # builds_on_busybox();
//! ```
//!
//! Helpers that only tests call panic with a message; those that `xtask` calls too return errors.
//!
//! **Limitations**: base images are made for the host's architecture, on Debian and its
//! descendants, as root. [`OciArchive`] reads uncompressed and gzip layers.

mod apt;
mod bases;
mod disk;
mod emulator;
mod git;
mod http;
mod image;
mod kill;
mod larder;
mod oci;
mod project;
mod proxy;
mod registry;
mod scratch;
mod server;
mod skip;
mod steps;
mod user;

pub use apt::{install, unpacked};
pub use bases::{Base, target_dir};
pub use disk::SmallDisk;
pub use emulator::Emulator;
pub use git::{GitRepository, GitServer};
pub use http::{Response, request};
pub use image::{MadeImage, tar_of};
pub use kill::{kill_after, kill_many, processes_left, random_delays};
pub use larder::{Larder, Run};
pub use oci::{Entry, EntryKind, OciArchive};
pub use project::Project;
pub use proxy::{Exchange, Fault, FaultProxy, On};
pub use registry::{Registry, RegistryOptions, RegistryTls};
pub use scratch::{Scratch, write_tree};
pub use server::{WebAnswer, WebRequest, WebServer};
pub use skip::{SKIPS_FILE, report_skip};
pub use steps::{Step, without_place};
pub use user::User;
