//! Writes results out: to the image store, as archives, as file trees.

mod archive;
mod config;
mod image;
mod tree;

use std::collections::HashMap;

use jiff::Timestamp;
use larder_dockerfile::Lowered;
use larder_oci::{Descriptor, Digest, ImageRef};
use larder_store::{Lease, SnapshotId};

use crate::error::{BuildError, Result};
use crate::progress::Reporter;

pub(crate) use archive::{ArchiveKind, ArchivedImage, write_images};

/// A result to be written out.
pub(crate) struct Export<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) reporter: &'a Reporter<'a>,
    /// The result's tree; `None` for an empty one.
    pub(crate) snapshot: Option<&'a SnapshotId>,
    pub(crate) lowered: &'a Lowered,
    /// The layers of all images that the build stands on, by diff ID.
    pub(crate) base_layers: HashMap<Digest, Descriptor>,
    pub(crate) tags: &'a [ImageRef],
}

impl Export<'_> {
    /// Returns the time that nothing in the result is to be later than.
    fn epoch(&self) -> Result<Option<Timestamp>> {
        let seconds = self.lowered.source_date_epoch;
        let bad =
            |error| BuildError::invalid("SOURCE_DATE_EPOCH is out of range").with_source(error);
        seconds.map(Timestamp::from_second).transpose().map_err(bad)
    }
}
