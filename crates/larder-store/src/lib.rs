//! The state directory.

mod blob;
mod cache_mount;
mod db;
mod disk;
mod error;
mod history;
mod id;
mod key;
mod layout;
mod lease;
mod lock;
mod settle;
mod snapshot;
mod store;
mod sweep;

pub use blob::BlobWriter;
pub use cache_mount::{CacheMountGuard, CacheMountRequest, Sharing};
pub use error::{Error, ErrorKind, Result};
pub use history::{BuildRecord, NewStep, StepRecord};
pub use id::{KeyId, SnapshotId};
pub use key::{CacheKey, ExportedRecord, KeyDep, KeyMatch, NewKey, ResultInfo, SaveMode, Saved};
pub use lease::Lease;
pub use lock::KeyLock;
pub use snapshot::{
    ActiveSnapshot, LayerBlob, NewLayer, NewSnapshot, RecordType, SnapshotInfo, UnpackedLayer,
};
pub use store::{Clock, Options, Snapshotter, Store};
