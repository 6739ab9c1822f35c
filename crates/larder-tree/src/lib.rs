//! File trees: paths that cannot leave them, build contexts, content digests, file operations, and
//! layers.
//!
//! The crate works on directories that it is handed, each by its handle. It knows nothing of the
//! store that holds them, of images, or of the build graph; it mounts nothing and starts no
//! process.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`beneath`] | resolves hostile paths beneath a directory: [`Root`](beneath::Root) |
//! | [`pattern`] | globs and `.dockerignore` patterns |
//! | [`context`] | lists a build context or a snapshot, and remembers digests |
//! | [`checksum`] | content digests: what COPY puts into a cache key |
//! | [`copy`] | COPY, and the other file operations |
//! | [`users`] | users and groups of a root file system |
//! | [`diff`] | makes a layer of what changed |
//! | [`apply`] | unpacks layers and archives |
//! | [`tar`] | reads and writes tar |
//! | [`compression`] | recognises, decodes and encodes compressed streams |
//! | [`erofs`] | writes layers as EROFS images |
//! | [`overlay`] | what layers show together, and writing upon them, without a mount |
//! | [`sink`] | what entries are made in: a directory, one upon layers, or an image |
//! | [`quota`] | asks for disk before it is written |
//! | [`bulk`] | writes large files past the page cache |
//!
//! ```no_run
//! use larder_tree::apply::{ApplyOptions, LayerForm, apply_layer};
//! use larder_tree::beneath::Root;
//! use larder_tree::compression::{Compression, Encoder};
//! use larder_tree::diff::{DigestWriter, LayerOptions, Style, write_layer};
//!
//! # fn main() -> larder_tree::Result<()> {
//! # let (upper_dir, lower_dir, new_dir) = ("upper".as_ref(), "lower".as_ref(), "new".as_ref());
//! // What an overlay's upper directory changed, as a compressed layer.
//! let (upper, lower) = (Root::open(upper_dir)?, Root::open(lower_dir)?);
//! let blob = Encoder::new(Vec::new(), Compression::gzip(), 2)?;
//! let mut layer = DigestWriter::new(blob);
//! write_layer(&upper, Some(&lower), Style::Overlay, &mut layer, &LayerOptions::default())?;
//! let (blob, diff_id, _) = layer.finish();
//! let blob = blob.finish()?;
//!
//! // The same layer, unpacked elsewhere.
//! let root = Root::open(new_dir)?;
//! let mut warn = |warning| eprintln!("{warning}");
//! let options = ApplyOptions::new(&mut warn);
//! let stats = apply_layer(&root, blob.as_slice(), LayerForm::Overlay, options)?;
//! assert_eq!(stats.diff_id, diff_id);
//! # Ok(())
//! # }
//! ```
//!
//! **Limitations**: Linux only, from 5.6 on (`openat2`). Each module tells its own.

pub mod apply;
pub mod beneath;
pub mod bulk;
pub mod checksum;
pub mod compression;
pub mod context;
pub mod copy;
pub mod diff;
pub mod erofs;
mod error;
pub mod overlay;
pub mod pattern;
pub mod quota;
pub mod sink;
pub mod tar;
pub mod users;
mod xattr;

pub use error::{Error, ErrorKind, Result};
