//! What outputs want of layers.

use crate::error::{BuildError, Result};
use crate::layers::Recipe;
use crate::request::{ImageOptions, ImageOutput, LayerCompression};

/// Returns whether all layers of an image must be blobs for what is asked of the image alone:
/// attestations may ask for it, too.
pub(crate) fn leaves_store(output: &ImageOutput) -> bool {
    let options = &output.options;
    output.push.is_some()
        || options.compression.is_some()
        || options.compression_level.is_some()
        || options.force_compression
        || options.rewrite_timestamp
}

/// Returns how layers are packed.
pub(crate) fn recipe(options: &ImageOptions, epoch: Option<i64>) -> Result<Recipe> {
    if options.rewrite_timestamp && epoch.is_none() {
        return Err(
            BuildError::invalid("`rewrite-timestamp` needs SOURCE_DATE_EPOCH")
                .with_hint("set it with `--build-arg SOURCE_DATE_EPOCH=SECONDS`"),
        );
    }
    let compression = options.compression.unwrap_or_default();
    Ok(Recipe {
        compression,
        level: options.compression_level,
        // An image's files can only be read one by one if all its layers say where they are.
        force: options.force_compression || compression == LayerCompression::Estargz,
        clamp_mtime: epoch.filter(|_| options.rewrite_timestamp),
    })
}
