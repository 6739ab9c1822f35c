//! The solver, driven by an in-memory store and ops that are pure functions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driver;
mod graph;
mod naive;
mod random;
mod store;
mod traces;
mod units;
