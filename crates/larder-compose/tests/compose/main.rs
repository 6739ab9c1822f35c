//! Compose files, as users write them.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod errors;
mod hostile;
mod load;
mod support;
mod targets;
