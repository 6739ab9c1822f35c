//! The tar format: a streaming [`Reader`] for what other tools write, and a deterministic
//! [`Writer`].
//!
//! The reader knows v7, ustar, GNU (long names, base-256 numbers, sparse files), star and PAX
//! (names, ids, sizes and times beyond the fields, `SCHILY.xattr.*`, the three sparse formats of
//! GNU). Names are bytes. The writer produces the bytes that Go's `archive/tar` produces for
//! containerd and BuildKit, so that equal trees make equal layers whoever packs them.
//!
//! ```
//! use std::io::{Read, Write};
//! use larder_tree::tar::{Header, Reader, Writer};
//!
//! let mut writer = Writer::new(Vec::new());
//! writer.append(&Header::file("greeting", 5)).unwrap();
//! writer.write_all(b"hello").unwrap();
//! let archive = writer.finish().unwrap();
//!
//! let mut reader = Reader::new(archive.as_slice());
//! let header = reader.next_entry().unwrap().unwrap();
//! assert_eq!((header.path.to_str(), header.size), (Some("greeting"), 5));
//! let mut text = String::new();
//! reader.contents().read_to_string(&mut text).unwrap();
//! assert_eq!(text, "hello");
//! ```
//!
//! **Limitations**: global PAX headers are skipped, as containerd does; multi-volume archives are
//! refused; the writer does not write sparse files.

mod block;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use header::{Header, Kind, Xattrs};
pub use reader::{Contents, Reader};
pub use sparse::Segment;
pub use writer::Writer;
