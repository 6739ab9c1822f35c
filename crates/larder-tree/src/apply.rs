//! Unpacks layers and archives into directories.
//!
//! [`apply_layer`] makes a layer into what overlayfs mounts, or applies it to a plain tree;
//! [`apply_image`] does so with the image of a layer; [`unpack`] unpacks any archive as it is. Streams may be compressed. Archives are hostile: each
//! name is resolved beneath the root by handle, where symlinks lead as they would for a process
//! whose root directory it is.
//!
//! | entry | outcome |
//! | --- | --- |
//! | absolute name, absolute target of a hard link | relative to the root |
//! | name, or target of a hard link, with `..` above the root | error, `Escape` |
//! | the root itself | skipped, as containerd does |
//! | parent directories that are missing | made, and told in [`ApplyStats::implied_dirs`] |
//! | something in the way | removed; a directory upon a directory is merged |
//! | device where we may not make one | skipped, with a [`Warning`] |
//! | attributes other than `user.*` and capabilities, and overlayfs' own | dropped |
//!
//! The order of entries doesn't matter for whiteouts: they hide what is beneath the layer, never
//! what it brings.
//!
//! **Limitations**: `aufs`' own files (`.wh..wh.*`) are skipped; access control lists are not
//! restored.

mod image;
mod name;
mod options;
mod place;
mod unpacker;
mod whiteout;

pub use image::apply_image;
pub use options::{ApplyOptions, ApplyStats, LayerForm, Ownership, UnpackStats, Warning};
pub use unpacker::{apply_layer, is_archive, unpack};
