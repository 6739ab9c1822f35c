//! From a tar to a blob, in one pass.

use std::io::{self, Write};
use std::sync::Arc;

use larder_oci::{Descriptor, Digest, media_type};
use larder_store::{BlobWriter, Lease};
use larder_tree::compression::{ChunkCache, Compression, Decoder, Encoder};
use larder_tree::diff::DigestWriter;

use super::Recipe;
use super::chunks::StoredChunks;
use crate::error::{BuildError, ErrorClass, Result};
use crate::request::LayerCompression;

/// A blob that was just made, and what its tar was.
pub(super) struct Encoded {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) tar_bytes: u64,
}

/// Makes a blob of the tar that `write` writes; it returns the tar's digest and length.
pub(super) fn encode(
    lease: &Lease,
    recipe: &Recipe,
    write: impl FnOnce(&mut dyn Write) -> Result<(Digest, u64)>,
) -> Result<Encoded> {
    let (media_type, compression) = encoding(recipe)?;
    let writer = lease.blob_writer(None)?;
    let chunks = Arc::new(StoredChunks::new(lease.store()));
    let cache: Arc<dyn ChunkCache> = chunks.clone();
    let encoder = Encoder::with_cache(writer, compression, threads(), cache);
    let mut encoder = encoder.map_err(failed)?;
    let (diff_id, tar_bytes) = write(&mut encoder)?;
    let writer: BlobWriter = encoder.finish().map_err(failed)?;
    let size_bytes = writer.offset();
    let digest = writer.commit()?;
    chunks.keep(&digest);
    Ok(Encoded {
        descriptor: Descriptor::new(media_type, digest, size_bytes),
        diff_id,
        tar_bytes,
    })
}

/// Makes a blob of what the blob `digest` holds compressed otherwise.
pub(super) fn transcode(lease: &Lease, digest: &Digest, recipe: &Recipe) -> Result<Encoded> {
    let blob = lease.store().open_blob(digest)?;
    let damaged =
        |source| BuildError::invalid(format!("cannot read layer `{digest}`")).with_source(source);
    let mut decoder = Decoder::new(blob)?;
    encode(lease, recipe, |out| {
        let mut out = DigestWriter::new(out);
        io::copy(&mut decoder, &mut out).map_err(damaged)?;
        let (_, diff_id, tar_bytes) = out.finish();
        Ok((diff_id, tar_bytes))
    })
}

fn encoding(recipe: &Recipe) -> Result<(&'static str, Compression)> {
    let level = recipe.level;
    Ok(match recipe.compression {
        LayerCompression::Gzip => (
            media_type::LAYER_GZIP,
            Compression::Gzip {
                level: level.map(|level| u32::try_from(level).unwrap_or(u32::MAX)),
            },
        ),
        LayerCompression::Zstd => (
            media_type::LAYER_ZSTD,
            level.map_or_else(Compression::zstd, |level| Compression::Zstd { level }),
        ),
        LayerCompression::Uncompressed => (media_type::LAYER, Compression::Uncompressed),
        LayerCompression::Estargz => {
            return Err(BuildError::invalid(
                "`compression=estargz` is not supported yet",
            ));
        }
    })
}

/// Returns how many threads compress one layer: one a processor.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn failed(source: larder_tree::Error) -> BuildError {
    let class = match source.kind() {
        larder_tree::ErrorKind::InvalidInput => ErrorClass::Invalid,
        _ => ErrorClass::Exhausted,
    };
    BuildError::new(class, "cannot compress a layer").with_source(source)
}
