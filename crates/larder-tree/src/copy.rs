//! Changes of a tree that file operations make: copies from another tree, and single directories,
//! files and links.
//!
//! [`copy`] is COPY and ADD, with the semantics of BuildKit's `fsutil`. Its source is a
//! [`Tree`](crate::context::Tree): a build context, of which it takes exactly what entered the content
//! digest, or a snapshot. Its destination is a [`Root`](crate::beneath::Root): a snapshot's merged
//! view, open for writing, whose symlinks are followed beneath it and no further.
//!
//! | source | destination | outcome |
//! | --- | --- | --- |
//! | file | a directory, or ends in `/` | inside, by its name |
//! | file | anything else | replaces it |
//! | directory | a directory, or nothing | its entries are merged into it |
//! | directory | a file | error |
//!
//! Files keep mode, times, hard links among each other, holes, users' extended attributes and file
//! capabilities. Sockets are left out.
//!
//! A file is not read again if what it held when it was digested is still in memory, or in the image
//! that an earlier copy made ([`copy_again`]).
//!
//! **Limitations**: a copy that fails leaves behind what it did until then; the caller discards the
//! snapshot. Times of access are set to those of modification. Access control lists and security
//! labels are not copied, nor are the attributes of symlinks and devices.

mod actions;
mod content;
mod copier;
mod mode;
mod options;
mod plan;
mod transfer;

pub use actions::{MkdirOptions, mkdir, mkfile, remove, symlink};
pub(crate) use content::{ContentCopier, write_all};
pub use copier::{copy, copy_again, copy_within};
pub use mode::ModeChange;
pub use options::{CopyOptions, CopyStats, FileAttributes};
