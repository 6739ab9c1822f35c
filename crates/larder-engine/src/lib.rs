//! The build engine: joins frontend, solver, store, executor and registry.

pub mod config;
mod error;
pub mod event;
pub mod request;
mod task;

pub use error::{BuildError, ErrorClass, Location, Result};
