//! The state directory: blobs, snapshots, cache keys, cache mounts, images, build history,
//! leases, `du` and prune.
//!
//! Any number of processes share one directory; there is no daemon and no repair step. The crate
//! is synchronous, knows neither builds nor registries, and mounts nothing by itself: it hands out
//! [`larder_oci::Mount`]s, and has a [`Mounter`] see to images.
//!
//! - [`Store`] is the open directory. Reading needs no more.
//! - [`Lease`] is a build's protection against prune: whatever is found or made through it stays
//!   until it ends. All that writes is a method of it.
//! - [`BlobWriter`] takes a blob; [`ActiveSnapshot`] is a tree being written, [`ActiveImage`] one
//!   that nobody sees before it is done, [`UnpackedLayer`] a layer that has arrived. Dropped, they
//!   leave nothing.
//! - [`CacheKey`], [`NewKey`] and [`KeyMatch`] are the cache: from keys to snapshots.
//! - [`CacheMountGuard`] is the right to use a cache mount, [`KeyLock`] the right to compute what
//!   a key names.
//! - [`Ceiling`] bounds what the directory takes; [`Watch`] looks after processes that write to it.
//! - [`UsageRecord`], [`Filter`] and [`PruneRequest`] are `du`, prune and garbage collection.
//!
//! ```
//! use larder_store::{Clock, NewSnapshot, Options, RecordType, Snapshotter, Store};
//!
//! # fn main() -> larder_store::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let root = dir.path().join("root");
//! let store = Store::open(&root, Options {
//!     clock: Clock::new(jiff::Timestamp::now),
//!     snapshotter: Snapshotter::Overlay { userxattr: false },
//!     ownership: larder_tree::apply::Ownership::Preserve,
//!     mounter: None,
//!     ceiling: None,
//!     settle_after: None,
//! })?;
//! let lease = store.lease()?;
//! let active = lease.prepare(&NewSnapshot {
//!     parent: None,
//!     description: "[1/1] COPY . .",
//!     record_type: RecordType::Regular,
//! })?;
//! let mount = active.mount()?; // for the executor
//! assert!(!mount.readonly);
//! let snapshot = active.commit()?;
//! assert_eq!(store.chain(&snapshot)?, [snapshot]);
//! lease.release()?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! larder.db, -wal, -shm  everything below has its rows here
//! version                the format, for people
//! blobs/sha256/HEX       blobs
//! reserve                room for pruning a full disk
//! snapshots/ID/fs        a snapshot's own files
//! snapshots/ID           or an EROFS image of them
//! cache-mounts/ID/fs     a cache mount, with its lock beside it
//! contexts/              the caller's caches about build contexts
//! leases/ID              locked by the lease's owner; what it has reserved
//! locks/                 of the collector, of reservations, of publication, of keys
//! partial/HEX            the rests of downloads, locked by who goes on
//! tmp/LEASE/             what a lease is writing
//! trash/                 what is being removed
//! volumes/               the caller's volumes
//! ```
//!
//! `docs/dev/store.md` has the schema, and the argument why crashes and concurrency do no harm.
//!
//! **Limitations**: blobs are named by SHA-256 only. A snapshot that is the difference of two others (LLB's `DiffOp`) can't be made.
//! Flattened and native snapshots take directories nested up to 400 levels. The state directory
//! must be on a local filesystem, with `flock` and shared memory mappings.

mod blob;
mod cache_mount;
mod ceiling;
mod check;
mod db;
mod disk;
mod error;
mod fetched;
mod filter;
mod gc;
mod history;
mod id;
mod image;
mod key;
mod layout;
mod lease;
mod lock;
mod origin;
#[cfg(test)]
mod plans_tests;
mod prune;
mod reserve;
mod settle;
mod snapshot;
mod store;
mod sweep;
mod trash;
mod usage;

pub use blob::{BlobWriter, UnhashedBlobWriter};
pub use cache_mount::{CacheMountGuard, CacheMountRequest, FillCacheMount, Sharing};
pub use ceiling::{Ceiling, Watch};
pub use check::Problem;
pub use error::{Error, ErrorKind, Result};
pub use fetched::FetchedSource;
pub use filter::Filter;
pub use gc::{DiskSpace, default_policies};
pub use history::{BuildRecord, NewStep, PackedReport, StepRecord};
pub use id::{KeyId, SnapshotId};
pub use image::{ImageInfo, NewImage, PlatformImage};
pub use key::{CacheKey, ExportedRecord, KeyDep, KeyMatch, NewKey, ResultInfo, SaveMode, Saved};
pub use lease::{Lease, LookUps};
pub use lock::KeyLock;
pub use prune::PruneRequest;
pub use snapshot::{
    ActiveImage, ActiveSnapshot, ActiveTree, LayerBlob, LayerInfo, Mounter, NewLayer, NewSnapshot,
    RecordType, SnapshotInfo, UnpackedLayer,
};
pub use store::{Clock, Options, Snapshotter, Store};
pub use usage::UsageRecord;
