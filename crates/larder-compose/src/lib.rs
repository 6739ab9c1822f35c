//! Compose files: from `compose.yaml` and all that belongs to it to a model of services and of
//! what they build. Reads files; starts nothing, asks no network, knows no engine.
//!
//! [`LoadOptions::load`] finds and reads the files, and returns a [`Project`]: its [`Service`]s,
//! volumes and secrets. [`Project::build_targets`] says what to build, in a neutral form, and
//! [`Project::to_yaml`] shows what was understood.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # std::fs::write(directory.path().join("compose.yaml"), "services: {api: {build: .}}")?;
//! let options = larder_compose::LoadOptions {
//!     working_directory: directory.path().to_owned(),
//!     project_name: Some("shop".to_owned()),
//!     ..Default::default()
//! };
//! let project = options.load()?;
//! let targets = project.build_targets(&["api"])?;
//! assert_eq!(targets[0].image, "shop-api");
//! # Ok(())
//! # }
//! ```
//!
//! A file goes through these stages, each a module: text to [`Node`]s with their lines (`yaml`),
//! variables (`interpolate`, `template`), a check of all keys (`schema`), one form for everything
//! (`canonical`), `include` and `extends` (`load`), then `merge` with the files before it. The
//! model is read from what comes out, so that only one form must be known there.
//!
//! Compose files are hostile input: sizes, nesting, aliases and the number of files have limits,
//! which are named constants.
//!
//! **Limitations**: remote files (`include: https://…`, `oci://…`) are refused. `deploy`,
//! `develop`, `models`, `provider` and hooks are let through unread, but for `deploy.replicas`.

mod canonical;
mod dotenv;
mod emit;
mod error;
mod interpolate;
mod load;
mod merge;
mod model;
mod node;
mod project_name;
mod schema;
mod targets;
mod template;
mod values;
mod variables;
mod yaml;

pub use dotenv::EnvFormat;
pub use error::{At, Error, ErrorKind, Result, Warning};
pub use load::LoadOptions;
pub use model::{
    Build, Condition, Dependency, Dockerfile, EnvFile, Grant, HealthTest, Healthcheck, Mount,
    MountKind, Origin, Port, Project, Resource, Restart, Service, Ulimit, Volume,
};
pub use node::{Entry, Map, Node, Value};
pub use project_name::check as check_project_name;
pub use targets::{BuildTarget, TargetContext, TargetSecret};
pub use variables::Variables;
