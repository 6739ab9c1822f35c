//! Snapshots: immutable trees made of layers.

mod active;
mod chain;
mod flatten;
mod info;
mod layer;
mod merge;

pub use active::{ActiveSnapshot, NewSnapshot};
pub use info::{LayerBlob, RecordType, SnapshotInfo};
pub use layer::{NewLayer, UnpackedLayer};

pub(crate) use info::{digest_column, missing};
