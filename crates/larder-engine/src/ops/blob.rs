//! The blob source: one blob of a registry, as a file.

use std::io;

use larder_llb::blob::BlobSource;
use larder_oci::Descriptor;
use larder_store::{NewSnapshot, RecordType, SnapshotId};
use larder_tree::beneath::Root;
use larder_tree::quota;
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{Fetcher, Origin, no_runtime};

/// The media type of bytes that nobody said anything of.
const BYTES: &str = "application/octet-stream";

/// Returns the tree that holds the blob; fetches it if the store lacks it.
pub(crate) fn load(fetcher: &Fetcher<'_>, source: &BlobSource) -> Result<SnapshotId> {
    let digest = &source.digest;
    if !fetcher.lease.hold_blobs(std::slice::from_ref(digest))? {
        let registry = fetcher.engine.registry();
        let size = registry.blob_size(&source.image_ref, digest);
        let size = fetcher.engine.tasks.block_on(size).map_err(no_runtime)??;
        let descriptor = Descriptor::new(BYTES, digest.clone(), size);
        fetcher.blob(&descriptor, &Origin::Registry(source.image_ref.clone()))?;
    }
    let active = fetcher.lease.prepare(&NewSnapshot {
        parent: None,
        description: &format!("blob {}", source.image_ref),
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
