//! A file from a web server on its way into a snapshot of its own.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use jiff::Timestamp;
use larder_exec::rootless::IdMap;
use larder_llb::http::HttpSource;
use larder_oci::{Digest, Sha256};
use larder_registry::BlobSink;
use larder_store::{ActiveSnapshot, Lease, NewSnapshot, RecordType, SnapshotId};
use larder_tree::beneath::Root;
use larder_tree::quota::{Quota, content_bytes};
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::{cannot_store, shown};
use crate::cancel::CancelFlag;
use crate::error::Result;
use crate::progress::{StatusProgress, VertexProgress};

/// A larger file is not downloaded.
const MAX_BYTES: u64 = 1 << 40;
/// The mode of a file that no other was asked for.
const DEFAULT_MODE: u32 = 0o600;
/// Where the download lies until its name is known; no name of a file begins so.
const PARTIAL: &str = "\nlarder.partial";

/// A tree with one file that is on its way.
pub(super) struct Partial {
    active: ActiveSnapshot,
    root: Root,
    file: File,
}

impl Partial {
    pub(super) fn new(lease: &Lease, source: &HttpSource) -> Result<Self> {
        let active = lease.prepare(&NewSnapshot {
            parent: None,
            description: &format!("http url {}", shown(&source.url)),
            record_type: RecordType::Regular,
        })?;
        let root = Root::from_fd(larder_exec::mount::open(&active.mount()?)?);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = root.open_file(PARTIAL, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self {
            active,
            root,
            file: File::from(file),
        })
    }

    pub(super) fn sink<'s>(
        &'s mut self,
        progress: Option<&'s VertexProgress<'s>>,
        cancel: Option<&'s CancelFlag>,
    ) -> Sink<'s> {
        Sink {
            file: &mut self.file,
            quota: self.active.quota(),
            hash: Sha256::new(),
            size_bytes: 0,
            progress,
            status: None,
            cancel,
        }
    }

    /// Gives the file its name and attributes, and keeps it.
    pub(super) fn commit(
        self,
        source: &HttpSource,
        filename: &str,
        modified: Option<Timestamp>,
    ) -> Result<SnapshotId> {
        let dir = self.root.open_dir("")?;
        let attributes = || {
            rustix::fs::renameat(&dir, PARTIAL, &dir, filename)?;
            let fd = self.file.as_fd();
            let is_owned = source.uid != 0 || source.gid != 0;
            if is_owned && larder_exec::rootless::id_map() != IdMap::Single {
                let (uid, gid) = (Uid::from_raw(source.uid), Gid::from_raw(source.gid));
                rustix::fs::fchown(fd, Some(uid), Some(gid))?;
            }
            let mode = match source.perm {
                0 => DEFAULT_MODE,
                perm => perm & 0o777,
            };
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
            let time = Timespec {
                tv_sec: modified.map_or(0, Timestamp::as_second),
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::futimens(fd, &times)
        };
        attributes().map_err(|errno| cannot_store(errno.into()))?;
        drop(dir);
        let Self { active, root, file } = self;
        drop((root, file));
        Ok(active.commit()?)
    }
}

/// Takes the bytes of a file.
pub(super) struct Sink<'a> {
    file: &'a mut File,
    quota: &'a dyn Quota,
    hash: Sha256,
    size_bytes: u64,
    progress: Option<&'a VertexProgress<'a>>,
    /// Begins with the first bytes.
    status: Option<StatusProgress<'a>>,
    cancel: Option<&'a CancelFlag>,
}

impl Sink<'_> {
    /// Returns the digest and the number of the bytes.
    pub(super) fn finish(self) -> (Digest, u64) {
        if let Some(status) = self.status {
            status.set(self.size_bytes);
            status.done();
        }
        (self.hash.finish(), self.size_bytes)
    }
}

impl BlobSink for Sink<'_> {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        if self.cancel.is_some_and(CancelFlag::is_set) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = chunk.len() as u64;
        if self.size_bytes + length > MAX_BYTES {
            let message = format!("the file is larger than {MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        self.quota.take(content_bytes(length))?;
        self.file.write_all(chunk)?;
        self.hash.update(chunk);
        self.size_bytes += length;
        if let Some(progress) = self.progress {
            let begin = || progress.status("downloading", 0);
            self.status.get_or_insert_with(begin).set(self.size_bytes);
        }
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        io::Seek::rewind(self.file)?;
        self.hash = Sha256::new();
        self.size_bytes = 0;
        Ok(())
    }

    fn size_known(&mut self, size_bytes: u64) {
        if let Some(progress) = self.progress
            && self.status.is_none()
        {
            self.status = Some(progress.status("downloading", size_bytes));
        }
    }
}
