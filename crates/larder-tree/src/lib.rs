//! File trees: safe path resolution, walking and patterns, content digests, copying, and layers:
//! the tar format, `diff` and `apply`, and compression.
//!
//! The crate works on directories that it is handed; it knows nothing of the store that holds
//! them, of images, nor of the build graph.

pub mod apply;
pub mod beneath;
pub mod checksum;
pub mod compression;
pub mod context;
pub mod copy;
pub mod diff;
mod error;
pub mod pattern;
pub mod tar;
pub mod users;
mod xattr;

pub use error::{Error, ErrorKind, Result};
