//! Bake files: builds that are defined in HCL or JSON, as `docker buildx bake` reads them.
//!
//! [`Definition::read`] parses files and evaluates their expressions; [`Definition::plan`] resolves
//! what is asked for, with inheritance and overrides, to a [`Plan`]: targets, each with all that one
//! build needs to know. Nothing here builds, and nothing but [`File::read_all`] touches the disk;
//! the clock, the environment and randomness come with [`Options`]. Compose files are read by a
//! [`ComposeReader`].
//!
//! Files are hostile input: their size, depth, and the steps and memory that they take to evaluate
//! are bounded.
//!
//! ```
//! use larder_bake::{ComposeReader, Definition, File, Options, Target};
//!
//! struct NoCompose;
//! impl ComposeReader for NoCompose {
//!     fn read(
//!         &self,
//!         _files: &[std::sync::Arc<File>],
//!     ) -> Result<Vec<(String, Target)>, Box<dyn std::error::Error + Send + Sync>> {
//!         Err("no compose files here".into())
//!     }
//! }
//!
//! let file = File {
//!     name: "docker-bake.hcl".to_owned(),
//!     text: r#"
//!         variable "TAG" { default = "latest" }
//!         target "default" { tags = ["app:${TAG}"] }
//!     "#.to_owned(),
//! };
//! let options = Options::new("linux/amd64", jiff::Timestamp::UNIX_EPOCH, || [0; 16]);
//! let definition = Definition::read(vec![file], &NoCompose, options)?;
//! let plan = definition.plan(&[], &["default.args.A=1".to_owned()])?;
//! let target = &plan.targets["default"];
//! assert_eq!(target.tags.as_deref(), Some(&["app:latest".to_owned()][..]));
//! assert_eq!(target.args["A"].as_deref(), Some("1"));
//! # Ok::<(), larder_bake::Error>(())
//! ```
//!
//! **Limitations**:
//!
//! - Of the standard library's functions, `bcrypt`, `rsadecrypt`, `byteslen` and `bytesslice` are
//!   missing.
//! - Numbers have 28 decimal digits, not Go's 150; regular expressions are Rust's.
//! - HCL's tuples are lists, its maps objects; the branch of a conditional that is not taken is not
//!   evaluated, so its type plays no role.
//! - With contexts relative to files, a context that is taken from another target by reference is
//!   relative to the file that refers.

mod config;
mod csv;
mod definitions;
mod entry;
mod error;
mod eval;
mod functions;
mod path;
mod plan;
mod print;
mod source;
mod syntax;
mod target;
mod types;
mod value;

pub use config::{ComposeReader, Definition, Variable};
pub use definitions::Options;
pub use entry::{AttestEntry, CacheEntry, OutputEntry, SecretEntry, SshEntry};
pub use error::{Error, ErrorKind, Place};
pub use path::{clean as clean_path, is_remote};
pub use plan::{Granted, Plan};
pub use print::ListFormat;
pub use source::{DEFAULT_FILES, File};
pub use target::{Group, Target};
