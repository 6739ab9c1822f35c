//! The build engine: joins frontend, solver, store, executor and registry.

pub mod event;
