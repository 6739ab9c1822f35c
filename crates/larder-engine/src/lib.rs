//! The build engine: joins frontend, solver, store, executor and registry.
//!
//! [`Engine`] is what every door of larder goes through: `larder build` runs one in its own
//! process. A [`BuildRequest`](request::BuildRequest) goes in, a stream of
//! [`BuildEvent`](event::BuildEvent)s and a [`BuildOutcome`](request::BuildOutcome) come out.
//!
//! ```no_run
//! use std::sync::Arc;
//! use larder_engine::event::BuildEvent;
//! use larder_engine::request::{BuildRequest, ContextSource};
//! use larder_engine::{CancelFlag, Engine, EngineOptions};
//!
//! fn main() -> larder_engine::Result<()> {
//!     let engine = Engine::open(EngineOptions::new("/var/lib/larder".into()))?;
//!     let request = BuildRequest::new(ContextSource::Directory(".".into()));
//!     let outcome = engine.build(request, &|event: BuildEvent| drop(event), &CancelFlag::new())?;
//!     println!("{} steps", outcome.steps.len());
//!     Ok(())
//! }
//! ```
//!
//! The engine holds no algorithms: one module an op, a source, an exporter. It must not know
//! terminals or flags.
//!
//! **Limitations**: of an index, one image is pulled at a time. Directories, layouts and secrets of
//! other machines can't be had: there are no sessions.

mod ahead;
mod attest;
mod build;
mod cache;
mod cancel;
mod cdi;
pub mod config;
mod container;
pub mod doctor;
mod emulation;
mod engine;
mod entitlement;
mod erofs;
mod error;
pub mod event;
mod explain;
mod exporter;
mod fetch;
mod history;
mod image_store;
mod images;
mod inspect;
mod layers;
mod login;
mod multi;
mod network;
mod openpgp;
mod ops;
mod output;
mod policy;
mod progress;
mod pull;
mod push;
pub mod request;
mod run;
mod snapshotter;
mod solve;
mod task;
mod web;
mod worker;

pub use build::{CheckOutcome, Question};
pub use cancel::CancelFlag;
pub use container::{
    Container, ContainerMount, ContainerRequest, ContainerSource, ProcessRequest, VolumeName,
};
pub use engine::{Engine, EngineOptions};
pub use error::{BuildError, ErrorClass, Location, Result};
pub use image_store::ImageDetails;
pub use larder_dockerfile::{Answer, Rule, Warning};
pub use larder_store::{
    Clock, Filter, ImageInfo, PruneRequest, RecordType, SnapshotId, UsageRecord,
};
pub use login::{Login, LoginPlace, Logins};
pub use multi::{ManyOptions, TargetError, TargetRequest};
pub use network::NetworkChoice;
pub use pull::PullOutcome;
pub use push::{PushOutcome, Pushed, PushedBlob};
pub use run::{RunRequest, Volume};
