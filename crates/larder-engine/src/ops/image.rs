//! The image source: pulls the layers that the store does not have.

use larder_store::SnapshotId;

use crate::error::{BuildError, Result};
use crate::fetch::{Fetcher, Origin};
use crate::images::ResolvedImage;

/// Returns the image's tree: as it is in the store, else with the missing layers fetched from its
/// registry and unpacked.
pub(crate) fn pull(fetcher: &Fetcher<'_>, image: &ResolvedImage) -> Result<SnapshotId> {
    let pinned = image.image_ref.with_digest(image.target.clone());
    let origin = match &image.layout {
        Some(directory) => Origin::Layout(directory.clone()),
        None => Origin::Registry(image.image_ref.clone()),
    };
    if image.snapshot.is_none() {
        fetcher.progress.status_done(format!("resolve {pinned}"));
    }
    unpack(fetcher, image, &origin, &format!("pulled from {pinned}"))
}

/// Returns the image's tree: as it is in the store, else with the missing layers fetched from
/// `origin` and unpacked.
pub(crate) fn unpack(
    fetcher: &Fetcher<'_>,
    image: &ResolvedImage,
    origin: &Origin,
    description: &str,
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
    fetcher.tree(&layers, origin, description)
}
