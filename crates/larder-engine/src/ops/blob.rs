//! The blob source: one blob of a registry or an OCI layout, as a file.

use std::io;
use std::path::Path;

use larder_llb::blob::{BlobLocator, BlobSource};
use larder_oci::{Descriptor, Digest};
use larder_store::{NewSnapshot, RecordType, SnapshotId};
use larder_tree::beneath::Root;
use larder_tree::quota;
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{Fetcher, Origin, layout_blob};
use crate::images::Layouts;

/// The media type of bytes that nobody said anything of.
const BYTES: &str = "application/octet-stream";

/// Returns the tree that holds the blob; fetches it if the store lacks it.
pub(crate) fn load(
    fetcher: &Fetcher<'_>,
    source: &BlobSource,
    layouts: &Layouts,
) -> Result<SnapshotId> {
    let digest = &source.locator.digest;
    fetch(fetcher, &source.locator, layouts)?;
    let active = fetcher.lease.prepare(&NewSnapshot {
        parent: None,
        description: &format!("blob {}", source.locator.image_ref),
        record_type: RecordType::Regular,
    })?;
    let root = Root::from_fd(larder_exec::mount::open(&active.mount()?)?);
    let failed = |error: io::Error| {
        BuildError::new(
            ErrorClass::Exhausted,
            format!("cannot write blob `{digest}`"),
        )
        .with_source(error)
    };
    let mut blob = fetcher.lease.store().open_blob(digest)?;
    let length = blob.metadata().map_err(failed)?.len();
    let needed =
        quota::content_bytes(length) + quota::directories_bytes(source.file_name().as_ref());
    active.quota().take(needed).map_err(failed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = root.open_file(source.file_name(), flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = std::fs::File::from(file);
    io::copy(&mut blob, &mut file).map_err(failed)?;
    finish(&file, source).map_err(|errno| failed(errno.into()))?;
    drop((file, root));
    Ok(active.commit()?)
}

/// Has a blob in the store, held by the build's lease.
pub(crate) fn fetch(fetcher: &Fetcher<'_>, blob: &BlobLocator, layouts: &Layouts) -> Result<()> {
    let digest = &blob.digest;
    if fetcher.lease.hold_blobs(std::slice::from_ref(digest))? {
        return Ok(());
    }
    let (origin, size_bytes) = if let Some(name) = &blob.layout {
        let directory = layouts.directory(name)?;
        let size_bytes = layout_blob_size(&directory, digest, name)?;
        (Origin::Layout(directory), size_bytes)
    } else {
        let registry = fetcher.engine.registry();
        let size = registry.blob_size(&blob.image_ref, digest);
        let size_bytes = fetcher
            .engine
            .tasks
            .until_canceled(fetcher.cancel, size)??;
        (Origin::Registry(blob.image_ref.clone()), size_bytes)
    };
    let descriptor = Descriptor::new(BYTES, digest.clone(), size_bytes);
    fetcher.blob(&descriptor, &origin)
}

fn layout_blob_size(directory: &Path, digest: &Digest, name: &str) -> Result<u64> {
    let missing = || {
        let message = format!("the OCI layout `{name}` has no blob `{digest}`");
        BuildError::new(ErrorClass::NotFound, message)
    };
    let metadata = std::fs::metadata(layout_blob(directory, digest));
    let metadata = metadata.map_err(|error| missing().with_source(error))?;
    if !metadata.is_file() {
        return Err(missing());
    }
    Ok(metadata.len())
}

/// Gives the file its mode, owner and time.
fn finish(file: &std::fs::File, source: &BlobSource) -> rustix::io::Result<()> {
    let (uid, gid) = source.owner;
    if (uid, gid) != (0, 0) {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(source.mode()))?;
    let times = Timestamps {
        last_access: Timespec::default(),
        last_modification: Timespec::default(),
    };
    rustix::fs::futimens(file, &times)
}
