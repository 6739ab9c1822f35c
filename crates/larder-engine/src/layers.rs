//! The layers of a snapshot: diff IDs and blobs, each made once in the life of the layer.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use larder_oci::{Descriptor, Digest, media_type};
use larder_store::{Lease, SnapshotId, SnapshotInfo, Store};
use larder_tree::compression::{Compression, Encoder};
use larder_tree::diff::LayerOptions;
use rayon::prelude::*;

use crate::error::Result;
use crate::request::LayerCompression;

/// How many threads compress one layer.
const COMPRESSION_THREADS: usize = 2;

/// One layer of a result.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) snapshot: SnapshotId,
    pub(crate) diff_id: Digest,
    pub(crate) tar_bytes: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) description: String,
}

/// Returns the layers of `snapshot`, lowest first. Diff IDs that are not known yet are computed,
/// all at once.
pub(crate) fn layers_of(lease: &Lease, snapshot: &SnapshotId) -> Result<Vec<Layer>> {
    let store = lease.store();
    let infos: Vec<SnapshotInfo> = store
        .chain(snapshot)?
        .iter()
        .map(|id| store.snapshot(id))
        .collect::<larder_store::Result<_>>()?;
    let unknown = infos.iter().filter(|info| info.diff_id.is_none()).count();
    // Threads cost more than the look-ups of a build where nothing is new.
    if unknown > 1 {
        infos
            .into_par_iter()
            .map(|info| layer_of(store, info))
            .collect()
    } else {
        infos
            .into_iter()
            .map(|info| layer_of(store, info))
            .collect()
    }
}

/// Returns a layer; its diff ID is computed if it is not known yet.
fn layer_of(store: &Store, info: SnapshotInfo) -> Result<Layer> {
    let (diff_id, tar_bytes) = if let Some(known) = info.diff_id.zip(info.tar_bytes) {
        known
    } else {
        let written = write_tar(store, &info.id, std::io::sink(), &LayerOptions::default())?;
        store.set_diff_id(&info.id, &written.0, written.1)?;
        written
    };
    Ok(Layer {
        snapshot: info.id,
        diff_id,
        tar_bytes,
        created_at: info.created_at,
        description: info.description,
    })
}

/// Writes a layer as an uncompressed tar; returns the tar's digest and length.
pub(crate) fn write_tar(
    store: &Store,
    id: &SnapshotId,
    out: impl Write,
    options: &LayerOptions,
) -> Result<(Digest, u64)> {
    let below: Option<OwnedFd> = match store.below(id)? {
        Some(mount) => Some(larder_exec::mount::open(&mount)?),
        None => None,
    };
    Ok(store.write_layer(id, below, out, options)?)
}

/// Returns the descriptor of a layer as it is: how an image that the build stands on has it, else
/// as an uncompressed tar, of which no copy is kept.
pub(crate) fn plain_descriptor(layer: &Layer, known: &HashMap<Digest, Descriptor>) -> Descriptor {
    known.get(&layer.diff_id).cloned().unwrap_or_else(|| {
        Descriptor::new(media_type::LAYER, layer.diff_id.clone(), layer.tar_bytes)
    })
}

/// Returns the descriptor of a layer's blob, which is made if it is not in the store.
///
/// `known` has the layers of the images that the build stands on: these stay as they are, if
/// their blobs are stored.
pub(crate) fn blob(
    lease: &Lease,
    layer: &Layer,
    compression: LayerCompression,
    known: &HashMap<Digest, Descriptor>,
) -> Result<Descriptor> {
    let store = lease.store();
    if let Some(descriptor) = known.get(&layer.diff_id)
        && lease.hold_blobs(std::slice::from_ref(&descriptor.digest))?
    {
        return Ok(descriptor.clone());
    }
    let (media_type, encoding) = match compression {
        LayerCompression::Gzip => (media_type::LAYER_GZIP, Compression::gzip()),
        LayerCompression::Zstd => (media_type::LAYER_ZSTD, Compression::Zstd { level: 0 }),
        LayerCompression::Uncompressed => (media_type::LAYER, Compression::Uncompressed),
    };
    for blob in store.snapshot(&layer.snapshot)?.blobs {
        let wanted = blob.stored && blob.descriptor.media_type == media_type;
        if wanted && lease.hold_blobs(std::slice::from_ref(&blob.descriptor.digest))? {
            return Ok(blob.descriptor);
        }
    }
    let descriptor = pack(
        lease,
        &layer.snapshot,
        media_type,
        encoding,
        &LayerOptions::default(),
    )?
    .0;
    store.add_layer_blob(&layer.snapshot, &descriptor)?;
    Ok(descriptor)
}

/// Packs a layer into a new blob; returns its descriptor and the diff ID of what was packed.
pub(crate) fn pack(
    lease: &Lease,
    snapshot: &SnapshotId,
    media_type: &str,
    encoding: Compression,
    options: &LayerOptions,
) -> Result<(Descriptor, Digest)> {
    let io = |source| {
        crate::BuildError::new(crate::ErrorClass::Exhausted, "cannot compress a layer")
            .with_source(source)
    };
    let mut writer = Counted {
        inner: lease.blob_writer(None)?,
        bytes: 0,
    };
    let mut encoder = Encoder::new(&mut writer, encoding, COMPRESSION_THREADS).map_err(io)?;
    let (diff_id, _) = write_tar(lease.store(), snapshot, &mut encoder, options)?;
    encoder.finish().map_err(io)?;
    let bytes = writer.bytes;
    let digest = writer.inner.commit()?;
    Ok((Descriptor::new(media_type, digest, bytes), diff_id))
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
