//! A cache in a directory: an OCI layout, shared by the caches of several tags.
//!
//! ```text
//! oci-layout       locked while a cache is written
//! index.json       one entry a tag
//! blobs/sha256/    what the entries lead to, and nothing else
//! ingest/          blobs that are being written
//! ```
//!
//! Blobs come first, then the index under its final name, then what no entry leads to any more is
//! removed: a reader never finds an entry without its blobs.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_cache::{Manifest, layout, limit};
use larder_oci::{Descriptor, Digest, ImageIndex, go_json};
use rustix::fs::FlockOperation;

use super::Cache;
use crate::cancel::CancelFlag;
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::layout_blob;

/// How often a locked directory is tried again.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Writes a cache under `tag`; with `reset`, as the only one of the directory.
pub(super) fn write(cache: &Cache<'_>, path: &Path, tag: &str, reset: bool) -> Result<()> {
    let failed = |error: io::Error| {
        let class = match error.kind() {
            io::ErrorKind::StorageFull => ErrorClass::Exhausted,
            _ => ErrorClass::Invalid,
        };
        let message = format!("cannot export the cache to `{}`", path.display());
        BuildError::new(class, message).with_source(error)
    };
    let layout = Layout {
        path: path.to_owned(),
    };
    let _lock = layout.open(cache.fetcher.cancel, &failed)?;
    for blob in cache.blobs() {
        cache.fetcher.cancel.check()?;
        let status = cache
            .fetcher
            .progress
            .status(format!("writing layer {}", blob.digest), 0);
        if !layout.has(blob) {
            cache.hold(blob)?;
            let content = cache.fetcher.lease.store().open_blob(&blob.digest)?;
            layout.add(&blob.digest, content).map_err(failed)?;
        }
        status.done();
    }
    let documents = [cache.exported.config_bytes(), &cache.manifest.bytes];
    for document in documents {
        let digest = Digest::sha256(document);
        layout.add(&digest, document).map_err(failed)?;
    }
    let mut index = match layout.index().map_err(failed)? {
        Some(index) if !reset => index,
        _ => layout::empty(),
    };
    layout::put(&mut index, &cache.manifest.descriptor, tag);
    let bytes = go_json(&index);
    layout
        .replace("index.json", &mut bytes.as_slice())
        .map_err(failed)?;
    layout.sweep(&index).map_err(failed)
}

struct Layout {
    path: PathBuf,
}

impl Layout {
    /// Makes what is missing, and locks the directory against other exports.
    fn open(&self, cancel: &CancelFlag, failed: &dyn Fn(io::Error) -> BuildError) -> Result<File> {
        for directory in ["blobs/sha256", "ingest"] {
            fs_err::create_dir_all(self.path.join(directory)).map_err(failed)?;
        }
        let file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path.join("oci-layout"))
            .map_err(failed)?;
        let mut file: File = file.into_parts().0;
        loop {
            match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    cancel.check()?;
                    std::thread::sleep(LOCK_INTERVAL);
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        if file.metadata().map_err(failed)?.len() == 0 {
            file.write_all(layout::OCI_LAYOUT).map_err(failed)?;
        }
        Ok(file)
    }

    fn has(&self, blob: &Descriptor) -> bool {
        let found = std::fs::metadata(layout_blob(&self.path, &blob.digest));
        found.is_ok_and(|found| found.is_file() && found.len() == blob.size_bytes)
    }

    fn add(&self, digest: &Digest, mut content: impl io::Read) -> io::Result<()> {
        let name = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
        self.replace(&name, &mut content)
    }

    /// Writes a file, which appears under its name when it is complete.
    fn replace(&self, name: &str, content: &mut dyn io::Read) -> io::Result<()> {
        // The directory is locked: no other export writes here.
        let temporary = self.path.join("ingest/part");
        let mut file = fs_err::File::create(&temporary)?;
        let copied = io::copy(content, &mut file).and_then(|_| file.flush());
        let done = copied.and_then(|()| fs_err::rename(&temporary, self.path.join(name)));
        if done.is_err() {
            // The first error tells more than a left-over would.
            let _ = fs_err::remove_file(&temporary);
        }
        done
    }

    /// Reads the index; `None` if there is none, or one that nobody could read.
    fn index(&self) -> io::Result<Option<ImageIndex>> {
        let bytes = read_limited(&self.path.join("index.json"), limit::MANIFEST_BYTES)?;
        Ok(bytes.and_then(|bytes| layout::parse(&bytes).ok()))
    }

    /// Removes the blobs that no entry of `index` leads to. If an entry can't be followed, all
    /// stay.
    fn sweep(&self, index: &ImageIndex) -> io::Result<()> {
        let mut kept = HashSet::new();
        let mut pending: Vec<Descriptor> = index.manifests.clone();
        while let Some(entry) = pending.pop() {
            if !kept.insert(entry.digest.clone()) {
                continue;
            }
            let path = layout_blob(&self.path, &entry.digest);
            let bytes = read_limited(&path, limit::MANIFEST_BYTES)?;
            match bytes.as_deref().map(Manifest::parse) {
                Some(Ok(
                    Manifest::Cache { config, layers } | Manifest::Image { config, layers },
                )) => {
                    kept.insert(config.digest);
                    kept.extend(layers.into_iter().map(|layer| layer.digest));
                }
                Some(Ok(Manifest::Images(images))) => pending.extend(images),
                Some(Err(_)) => return Ok(()),
                // Too large to be followed.
                None if path.exists() => return Ok(()),
                // What is gone leads nowhere.
                None => {}
            }
        }
        for entry in fs_err::read_dir(self.path.join("blobs/sha256"))? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>();
            // A name that is no digest is somebody else's.
            if digest.is_ok_and(|digest| !kept.contains(&digest)) {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Reads a file; `None` if it does not exist or is larger than `limit_bytes`.
fn read_limited(path: &Path, limit_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit_bytes as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() <= limit_bytes))
}
