//! Snapshots: immutable trees made of layers.

mod active;
mod chain;
mod erofs;
mod flatten;
mod image;
mod info;
mod layer;
mod lower;
mod merge;
mod unpacked;

pub use active::{ActiveSnapshot, ActiveTree, NewSnapshot};
pub use erofs::Mounter;
pub use image::ActiveImage;
pub use info::{LayerBlob, LayerInfo, RecordType, SnapshotInfo};
pub use layer::{NewLayer, UnpackedLayer};

pub(crate) use chain::{Form, Packing};
pub(crate) use erofs::Mounts;
pub(crate) use info::{digest_column, missing, optional_digest_column};
pub(crate) use lower::Lowers;
