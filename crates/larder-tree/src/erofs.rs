//! Layers as EROFS images: one file that the kernel mounts, instead of a directory of many.
//!
//! Making files is what unpacking costs. An [`Image`] is written front to back into one file, as
//! the entries come, and takes the place of a directory wherever a
//! [`Sink`](crate::sink::Sink) is asked for: `apply_layer`, `copy`, `mkdir`, `mkfile`, `symlink`
//! and `remove` make the same of it that they make of a [`Root`](crate::beneath::Root).
//!
//! ```no_run
//! use larder_tree::apply::{ApplyOptions, LayerForm, apply_layer};
//! use larder_tree::erofs::Image;
//!
//! # fn main() -> larder_tree::Result<()> {
//! # let (file, lower, layer): (std::fs::File, larder_tree::overlay::Lower, &[u8]) = todo!();
//! // A pulled layer: what lies beneath it isn't known yet.
//! let image = Image::new(file);
//! let mut warn = |warning| eprintln!("{warning}");
//! let stats = apply_layer(&image, layer, LayerForm::Overlay, ApplyOptions::new(&mut warn))?;
//! // Now it is: what the archive only implied looks as it does beneath.
//! image.inherit(&stats.implied_dirs, &lower)?;
//! image.drop_whiteouts(&stats.whiteouts, &lower)?;
//! let summary = image.finish()?;
//! # Ok(())
//! # }
//! ```
//!
//! An image that [`copy_again`](crate::copy::copy_again) made ends with a record of what its files were
//! copied from, so that the next copy takes over from it what has not changed: see [`Past`]. Large files need not be copied
//! even so: the new image uses the blocks of the earlier one, which becomes its extra device.
//!
//! What the image holds is seen when the kernel has mounted it, after [`Image::finish`]; or a
//! [`Reader`] reads it, of which [`write_layer`](crate::diff::write_layer) packs a layer.
//!
//! **Limitations**: nothing is compressed or deduplicated. A hole in a file is one in the image too,
//! but the mounted file doesn't tell of it. What an entry held that a later one replaced stays in
//! the image, unreachable. Nothing is synced to disk.

mod copied;
mod decode;
mod directories;
mod file;
mod files;
mod format;
mod image;
mod inodes;
mod lower;
mod past;
mod reader;
mod sink;
mod stream;
mod tree;
mod walk;
mod writer;
mod xattrs;

pub(crate) use decode::{ReadEntry, ReadInode};
pub use files::{Device, Files};
pub use image::{Image, Summary};
pub use past::Past;
pub(crate) use past::{CHECKED_BYTES, PastContent};
pub use reader::Reader;
