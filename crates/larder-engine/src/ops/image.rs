//! The image source: pulls the layers that the store does not have.

use std::io;

use larder_llb::cache_map::chain_id;
use larder_oci::{Descriptor, Digest};
use larder_registry::{BlobSink, Partial};
use larder_store::{BlobWriter, Lease, NewLayer, SnapshotId, UnpackedLayer};

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::images::ResolvedImage;
use crate::progress::{StatusProgress, VertexProgress};
use crate::task::Tasks;

/// Returns the image's tree: as it is in the store, else with the missing layers fetched and
/// unpacked, all at once.
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
    let diff_ids = &image.config.rootfs.diff_ids;
    if diff_ids.is_empty() {
        return Err(BuildError::invalid(format!(
            "image `{}` has no layers",
            image.image_ref
        )));
    }
    let pinned = image.image_ref.with_digest(image.target.clone());
    progress.status_done(format!("resolve {pinned}"));
    let mut below = None;
    let mut present = 0;
    for count in (1..=diff_ids.len()).rev() {
        let chain =
            chain_id(&diff_ids[..count]).ok_or_else(|| BuildError::internal("no layers"))?;
        if let Some(snapshot) = lease.snapshot_by_chain_id(&chain)? {
            (below, present) = (Some(snapshot), count);
            break;
        }
    }
    let unpacked = fetch_all(engine, lease, image, present, progress, cancel)?;
    let description = format!("pulled from {pinned}");
    for (offset, layer) in unpacked.into_iter().enumerate() {
        let count = present + offset + 1;
        let chain =
            chain_id(&diff_ids[..count]).ok_or_else(|| BuildError::internal("no layers"))?;
        let new = NewLayer {
            parent: below.as_ref(),
            chain_id: &chain,
            blob: Some(&image.manifest.layers[count - 1]),
            description: &description,
        };
        below = Some(lease.link(layer, &new)?);
    }
    below.ok_or_else(|| BuildError::internal("an image came out without layers"))
}

/// Fetches and unpacks the layers from `present` on, each on a thread of its own: the registry
/// client bounds how many arrive at once.
fn fetch_all(
    engine: &Engine,
    lease: &Lease,
    image: &ResolvedImage,
    present: usize,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<Vec<UnpackedLayer>> {
    let layers = image
        .manifest
        .layers
        .iter()
        .zip(&image.config.rootfs.diff_ids)
        .skip(present);
    std::thread::scope(|scope| {
        let threads: Vec<_> = layers
            .map(|(descriptor, diff_id)| {
                Tasks::spawn(scope, "layer", move || {
                    fetch(engine, lease, image, descriptor, diff_id, progress, cancel)
                })
            })
            .collect();
        let finish = |thread: io::Result<
            std::thread::ScopedJoinHandle<'_, Result<UnpackedLayer>>,
        >| {
            let failed = |source| {
                BuildError::new(ErrorClass::Exhausted, "cannot start a thread").with_source(source)
            };
            let panicked = |_| BuildError::internal("the thread of a layer panicked");
            thread.map_err(failed)?.join().map_err(panicked)?
        };
        let finished: Vec<Result<UnpackedLayer>> = threads.into_iter().map(finish).collect();
        finished.into_iter().collect()
    })
}

fn fetch(
    engine: &Engine,
    lease: &Lease,
    image: &ResolvedImage,
    descriptor: &Descriptor,
    diff_id: &Digest,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<UnpackedLayer> {
    cancel.check()?;
    let digest = &descriptor.digest;
    if !lease.hold_blobs(std::slice::from_ref(digest))? {
        download(engine, lease, image, descriptor, progress, cancel)?;
    }
    let status = progress.status(format!("extracting {digest}"), 0);
    let blob = lease.store().open_blob(digest)?;
    let mut warn = |warning: larder_tree::apply::Warning| progress.warn(warning.to_string());
    let layer = lease.unpack(diff_id, blob, &mut warn)?;
    status.done();
    Ok(layer)
}

fn download(
    engine: &Engine,
    lease: &Lease,
    image: &ResolvedImage,
    descriptor: &Descriptor,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<()> {
    let expected = Some((descriptor.digest.clone(), descriptor.size_bytes));
    let writer = lease.blob_writer(expected)?;
    let partial = Partial {
        offset_bytes: writer.offset(),
        hash: writer.hasher(),
    };
    let status = progress.status(descriptor.digest.to_string(), descriptor.size_bytes);
    status.set(writer.offset());
    let mut sink = Sink {
        writer,
        status: &status,
        cancel,
    };
    let client = engine.registry();
    let fetched =
        engine
            .tasks
            .block_on(client.fetch_blob(&image.image_ref, descriptor, partial, &mut sink));
    let runtime = |source| {
        BuildError::new(ErrorClass::Exhausted, "cannot start the network's runtime")
            .with_source(source)
    };
    let fetched = fetched.map_err(runtime)?;
    cancel.check()?;
    fetched?;
    sink.writer.commit()?;
    status.done();
    Ok(())
}

/// Writes a download into the store.
struct Sink<'a> {
    writer: BlobWriter,
    status: &'a StatusProgress<'a>,
    cancel: &'a CancelFlag,
}

impl BlobSink for Sink<'_> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.cancel.is_set() {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        io::Write::write_all(&mut self.writer, chunk)?;
        self.status.set(self.writer.offset());
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.writer.restart().map_err(io::Error::other)
    }
}
