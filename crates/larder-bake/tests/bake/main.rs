//! What bake files come to, through the public surface.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod compose;
mod errors;
mod expressions;
mod functions;
mod groups;
mod hostile;
mod json;
mod matrix;
mod overrides;
mod print;
mod support;
mod targets;
mod variables;
