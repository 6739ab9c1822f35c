//! Images: what the kernel, and Debian's own tools, see in them.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod again;
mod content;
mod copies;
mod damaged;
mod hostile;
mod shapes;
mod shared;
mod support;
mod upon;
