//! From a tar to a blob, in one pass.

use std::io::{self, Write};
use std::sync::Arc;

use larder_oci::{Descriptor, Digest, media_type};
use larder_tree::ErrorKind;
use larder_tree::compression::{ChunkCache, Compression, Decoder, LayerEncoder, write_estargz};

use super::chunks::StoredChunks;
use super::{Packer, Recipe};
use crate::error::{BuildError, ErrorClass, Result};
use crate::request::LayerCompression;
use crate::task::Tasks;

/// Says of an eStargz layer which digest its index has, by which readers trust it.
const INDEX_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// Says of an eStargz layer how long its tar is.
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// A blob that was just made, and what its tar was.
pub(super) struct Encoded {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) tar_bytes: u64,
}

/// Makes a blob of the tar that `write` writes.
pub(super) fn encode(
    packer: &Packer<'_>,
    recipe: &Recipe,
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
) -> Result<Encoded> {
    if recipe.compression == LayerCompression::Estargz {
        return encode_estargz(packer, recipe, write);
    }
    let lease = packer.lease;
    let (media_type, compression) = encoding(recipe);
    let writer = lease.unhashed_blob_writer()?;
    let chunks = Arc::new(StoredChunks::new(lease.store()));
    let cache: Arc<dyn ChunkCache> = chunks.clone();
    let encoder = LayerEncoder::new(writer, compression, &packer.threads(), &cache);
    let mut encoder = encoder.map_err(failed)?;
    write(&mut packer.until_canceled(&mut encoder)).map_err(|error| packer.failed(error))?;
    let layer = encoder.finish().map_err(failed)?;
    layer.out.commit(&layer.digest)?;
    chunks.keep(&layer.digest);
    Ok(Encoded {
        descriptor: Descriptor::new(media_type, layer.digest, layer.size_bytes),
        diff_id: layer.diff_id,
        tar_bytes: layer.tar_bytes,
    })
}

/// Makes a blob of what the blob `digest` holds compressed otherwise.
pub(super) fn transcode(packer: &Packer<'_>, digest: &Digest, recipe: &Recipe) -> Result<Encoded> {
    let blob = packer.lease.store().open_blob(digest)?;
    let damaged =
        |source| BuildError::invalid(format!("cannot read layer `{digest}`")).with_source(source);
    let mut decoder = Decoder::new(blob)?;
    encode(packer, recipe, |out| {
        io::copy(&mut decoder, out).map_err(damaged)?;
        Ok(())
    })
}

fn encoding(recipe: &Recipe) -> (&'static str, Compression) {
    let level = recipe.level;
    match recipe.compression {
        LayerCompression::Gzip | LayerCompression::Estargz => (
            media_type::LAYER_GZIP,
            Compression::Gzip {
                level: gzip_level(recipe),
            },
        ),
        LayerCompression::Zstd => (
            media_type::LAYER_ZSTD,
            level.map_or_else(Compression::zstd, |level| Compression::Zstd { level }),
        ),
        LayerCompression::Uncompressed => (media_type::LAYER, Compression::Uncompressed),
    }
}

fn gzip_level(recipe: &Recipe) -> Option<u32> {
    let level = recipe.level?;
    Some(u32::try_from(level).unwrap_or(u32::MAX))
}

/// Makes an eStargz blob of the tar that `write` writes, which is read on the way and gets a
/// further entry: the blob's diff ID is not that of the layer.
fn encode_estargz(
    packer: &Packer<'_>,
    recipe: &Recipe,
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
) -> Result<Encoded> {
    let no_pipe = |source| {
        BuildError::new(ErrorClass::Exhausted, "cannot compress a layer").with_source(source)
    };
    let (tar, mut into) = io::pipe().map_err(no_pipe)?;
    let mut writer = packer.lease.blob_writer(None)?;
    let made = std::thread::scope(|scope| {
        // The pipe ends with the thread, and with it the tar.
        let source = Tasks::spawn(scope, "estargz", move || {
            write(&mut packer.until_canceled(&mut into))
        })
        .map_err(no_pipe)?;
        let made = write_estargz(tar, &mut writer, gzip_level(recipe));
        let written = source
            .join()
            .map_err(|_| BuildError::internal("the thread of a layer panicked"))?;
        match made {
            // Whoever can't read on makes the other side fail, too.
            Err(error) if written.is_ok() || error.kind() != ErrorKind::InvalidInput => {
                Err(failed(error))
            }
            made => written.and(made.map_err(failed)),
        }
    });
    let made = made.map_err(|error| packer.failed(error))?;
    let size_bytes = writer.offset();
    let mut descriptor = Descriptor::new(media_type::LAYER_GZIP, writer.commit()?, size_bytes);
    descriptor.annotations.extend([
        (INDEX_DIGEST.to_owned(), made.index_digest.to_string()),
        (UNCOMPRESSED_SIZE.to_owned(), made.tar_bytes.to_string()),
    ]);
    Ok(Encoded {
        descriptor,
        diff_id: made.diff_id,
        tar_bytes: made.tar_bytes,
    })
}

fn failed(source: larder_tree::Error) -> BuildError {
    let class = match source.kind() {
        ErrorKind::InvalidInput => ErrorClass::Invalid,
        _ => ErrorClass::Exhausted,
    };
    BuildError::new(class, "cannot compress a layer").with_source(source)
}
