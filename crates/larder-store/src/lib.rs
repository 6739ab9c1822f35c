//! The state directory.

mod blob;
mod cache_mount;
mod check;
mod db;
mod disk;
mod error;
mod filter;
mod gc;
mod history;
mod id;
mod image;
mod key;
mod layout;
mod lease;
mod lock;
mod prune;
mod settle;
mod snapshot;
mod store;
mod sweep;
mod usage;

pub use blob::BlobWriter;
pub use cache_mount::{CacheMountGuard, CacheMountRequest, Sharing};
pub use check::Problem;
pub use error::{Error, ErrorKind, Result};
pub use filter::Filter;
pub use gc::{DiskSpace, default_policies};
pub use history::{BuildRecord, NewStep, StepRecord};
pub use id::{KeyId, SnapshotId};
pub use image::{ImageInfo, NewImage};
pub use key::{CacheKey, ExportedRecord, KeyDep, KeyMatch, NewKey, ResultInfo, SaveMode, Saved};
pub use lease::Lease;
pub use lock::KeyLock;
pub use prune::PruneRequest;
pub use snapshot::{
    ActiveSnapshot, LayerBlob, NewLayer, NewSnapshot, RecordType, SnapshotInfo, UnpackedLayer,
};
pub use store::{Clock, Options, Snapshotter, Store};
pub use usage::UsageRecord;
