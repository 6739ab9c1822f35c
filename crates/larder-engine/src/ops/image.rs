//! The image source: pulls the layers that the store does not have.

use larder_store::{Lease, SnapshotId};

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, Result};
use crate::fetch::{Fetcher, Origin};
use crate::images::ResolvedImage;
use crate::progress::VertexProgress;

/// Returns the image's tree: as it is in the store, else with the missing layers fetched and
/// unpacked.
pub(crate) fn pull(
    engine: &Engine,
    lease: &Lease,
    image: &ResolvedImage,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<SnapshotId> {
    if let Some(snapshot) = &image.snapshot {
        return Ok(snapshot.clone());
    }
    let layers = image.layers();
    if layers.is_empty() {
        return Err(BuildError::invalid(format!(
            "image `{}` has no layers",
            image.image_ref
        )));
    }
    let pinned = image.image_ref.with_digest(image.target.clone());
    progress.status_done(format!("resolve {pinned}"));
    let fetcher = Fetcher {
        engine,
        lease,
        progress,
        cancel,
    };
    let origin = Origin::Registry(image.image_ref.clone());
    fetcher.tree(&layers, &origin, &format!("pulled from {pinned}"))
}
