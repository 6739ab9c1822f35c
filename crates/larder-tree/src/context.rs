//! Trees to read from: the local build context, read where it lies, and snapshot views.
//!
//! A [`Tree`] is a directory's listing in memory, in the order in which BuildKit sends a context
//! (names compared as bytes, a directory's entries right after it). [`scan`] lists a build context
//! as a whole, with what `.dockerignore` and the followed paths leave of it. [`Tree::view`] lists a
//! snapshot's tree directory by directory, as far as it is asked for.
//!
//! Nothing is read from files before their digest is wanted. The [`StatCache`] remembers digests
//! between builds; it believes a file's stamp (device, inode, times of change and modification, size,
//! mode) and nothing less, and never one so young that a later change could have the same.
//!
//! ```no_run
//! use larder_tree::beneath::Root;
//! use larder_tree::context::{ScanOptions, StatCache, scan};
//!
//! # fn main() -> larder_tree::Result<()> {
//! # let (started_at_nanos, cache_file) = (0, std::path::Path::new("stat-cache"));
//! let root = Root::open("/home/me/project".as_ref())?;
//! let options = ScanOptions {
//!     excludes: &["**/node_modules".to_owned()],
//!     started_at_nanos,
//!     ..ScanOptions::default()
//! };
//! let context = scan(root, &options, StatCache::load(cache_file))?;
//! for entry in context.entries()? {
//!     let _ = (entry.path(), entry.attributes());
//! }
//! if let Some(cache) = context.updated_cache() {
//!     cache.save(cache_file)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Small files of a context stay in memory from when they are digested until they are first copied,
//! within a limit: what is copied then is what was digested, whatever became of the file.
//!
//! **Limitations**: a file that changes between the scan and the moment its digest is computed is
//! an error of kind [`Changed`](crate::ErrorKind::Changed), not silently read anew.

mod attributes;
mod follow;
mod metadata;
mod record;
mod resolve;
mod scan;
mod stat_cache;
mod tree;

pub use attributes::{Attributes, Kind};
pub(crate) use attributes::{Stamp, Xattrs, read_xattrs};
pub use metadata::{METADATA_NAME, metadata};
pub(crate) use record::RecordHasher;
pub use scan::{ScanOptions, scan};
pub use stat_cache::StatCache;
pub use tree::{Entry, Tree};
pub(crate) use tree::{cannot_read, changed, compute_digests};
