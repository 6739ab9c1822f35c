//! Content digests of trees: what COPY, ADD and bind mounts put into cache keys.
//!
//! The digests are those of BuildKit's `contenthash`, to the byte, so that a cache that either
//! program exported is a hit for the other.
//!
//! - [`content_digest`] is the key of some paths of a [`Tree`](crate::context::Tree), each named by
//!   a [`Selector`].
//! - A [`Manifest`] lists what such a digest covers, small enough to be kept with the cache record:
//!   [`Manifest::compare`] tells why a later digest is another one.
//!
//! # Formats
//!
//! | digest | SHA-256 over |
//! | --- | --- |
//! | of a file, link, device | a header of its attributes, then its bytes |
//! | of a directory, whole | `\0` and its header's digest, then for each entry `\0`, name, digest |
//! | of a selector with wildcards or patterns | for each matched file and directory header: its path with `\0` for `/`, then its digest |
//! | content digest | the selectors' digests, in the order of their paths, joined by `\0` |
//!
//! Digests enter others as text, `sha256:…`. The header of a build context's topmost directory
//! counts as empty.
//!
//! **Limitations**: two selectors of one digest may list the same file; a manifest lists it once.

mod digest;
mod manifest;
mod select;

pub use digest::content_digest;
pub use manifest::{Change, Difference, Manifest};
pub use select::Selector;
