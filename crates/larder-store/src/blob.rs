use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use larder_oci::{Digest, Sha256};
use larder_tree::bulk::BulkFile;
use larder_tree::quota::content_bytes;
use rusqlite::params;
use rustix::fs::{Mode, OFlags};

use crate::ceiling::{Reservation, into_io};
use crate::id::random_text;
use crate::lock::{FileLock, LockMode};
use crate::{Error, ErrorKind, Lease, Result, Store, disk};

/// Bytes read at a time when a partial download is hashed again.
const BUFFER_BYTES: usize = 1 << 16;

impl Store {
    /// Returns whether the blob `digest` is stored. Only a blob held by a lease stays so.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?")?;
            Ok(statement.exists([digest.as_str()])?)
        })
    }

    /// Opens the blob `digest` for reading. The content is not verified again.
    ///
    /// # Errors
    /// `NotFound` if it is not stored.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        require_sha256(digest)?;
        File::open(self.layout().blob(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::not_found(format_args!("blob `{digest}`")),
            _ => Error::io(format_args!("cannot open blob `{digest}`"), error),
        })
    }

    /// Returns the bytes of the small blob `digest`, a manifest or config, verified.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if it has more than `limit_bytes`; `Corrupt` if the digest of what
    /// is stored is another one.
    pub fn read_blob(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io(format_args!("cannot read blob `{digest}`"), error))?;
        if bytes.len() as u64 > limit_bytes {
            return Err(Error::invalid(format_args!(
                "blob `{digest}` has more than {limit_bytes} bytes"
            )));
        }
        match Digest::sha256(&bytes) {
            actual if actual == *digest => Ok(bytes),
            actual => Err(Error::corrupt(format_args!(
                "stored blob `{digest}` is damaged: its digest is `{actual}`"
            ))),
        }
    }
}

impl Lease {
    /// Stores those of `blobs` that aren't yet, and protects all.
    pub fn put_blobs(&self, blobs: &[&[u8]]) -> Result<Vec<Digest>> {
        let digests: Vec<Digest> = blobs.iter().map(Digest::sha256).collect();
        if !self.hold_blobs(&digests)? {
            for bytes in blobs {
                self.put_blob(bytes)?;
            }
        }
        Ok(digests)
    }

    /// Stores `bytes`, if they aren't yet, and protects the blob.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::sha256(bytes);
        if self.store().has_blob(&digest)? && self.hold_blobs(std::slice::from_ref(&digest))? {
            return Ok(digest);
        }
        let mut writer = self.blob_writer(None)?;
        writer
            .write_all(bytes)
            .map_err(|error| Error::io(format_args!("cannot write blob `{digest}`"), error))?;
        writer.commit()
    }

    /// Starts to write a blob, hashed on the way.
    ///
    /// With `expected` (digest and length in bytes), [`BlobWriter::commit`] accepts nothing else;
    /// what an earlier attempt left is taken up ([`BlobWriter::offset`]), and what this one
    /// leaves is kept for the next. Several may write one digest at a time; one of them resumes.
    pub fn blob_writer(&self, expected: Option<(Digest, u64)>) -> Result<BlobWriter> {
        // Before a rest is locked: whoever takes stock then leaves it to us.
        let expected_bytes = expected.as_ref().map_or(0, |(_, size_bytes)| *size_bytes);
        let reservation = Reservation::new(self, content_bytes(expected_bytes))?;
        if let Some((digest, size_bytes)) = &expected {
            require_sha256(digest)?;
            let path = self.store().layout().partial(digest);
            if let Some(lock) = FileLock::attempt(&path, LockMode::Exclusive)? {
                let expected = (digest.clone(), *size_bytes);
                return BlobWriter::resume(self.clone(), lock, path, expected, reservation);
            }
        }
        let path = self.tmp()?.join(random_text());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| Error::io("cannot make a file for a blob", errno))?;
        Ok(BlobWriter {
            lease: self.clone(),
            file: BulkFile::new(File::from(file), 0),
            path,
            expected,
            hasher: Sha256::new(),
            offset: 0,
            resumable: None,
            finished: false,
            reservation,
        })
    }

    /// Starts to write a blob whose digest the caller computes on the way.
    pub fn unhashed_blob_writer(&self) -> Result<UnhashedBlobWriter> {
        self.blob_writer(None).map(UnhashedBlobWriter)
    }
}

/// A blob being written by someone who computes its digest, or knows it. Nobody sees it before
/// [`UnhashedBlobWriter::commit`].
#[derive(Debug)]
pub struct UnhashedBlobWriter(BlobWriter);

impl UnhashedBlobWriter {
    /// Stores and protects what was written as the blob `digest`, which must be the SHA-256 digest
    /// of just these bytes: it is not verified.
    pub fn commit(self, digest: &Digest) -> Result<()> {
        require_sha256(digest)?;
        self.0.store_as(digest)
    }
}

impl Write for UnhashedBlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob being written. Nobody sees it before [`BlobWriter::commit`].
#[derive(Debug)]
pub struct BlobWriter {
    lease: Lease,
    file: BulkFile,
    path: PathBuf,
    expected: Option<(Digest, u64)>,
    hasher: Sha256,
    offset: u64,
    /// The lock on the file, if it stays when this value goes.
    resumable: Option<FileLock>,
    finished: bool,
    /// Released last, when the bytes are recorded, gone, or a rest for another to take up.
    reservation: Reservation,
}

impl BlobWriter {
    fn resume(
        lease: Lease,
        lock: FileLock,
        path: PathBuf,
        (digest, size_bytes): (Digest, u64),
        reservation: Reservation,
    ) -> Result<Self> {
        let failed = |error| Error::io(format_args!("cannot resume blob `{digest}`"), error);
        let mut file = File::from(lock.file().try_clone().map_err(failed)?);
        if file.metadata().map_err(failed)?.len() > size_bytes {
            file.set_len(0).map_err(failed)?;
        }
        let mut hasher = Sha256::new();
        let mut offset = 0;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    offset += count as u64;
                }
            }
        }
        Ok(Self {
            lease,
            file: BulkFile::new(file, offset),
            path,
            expected: Some((digest, size_bytes)),
            hasher,
            offset,
            resumable: Some(lock),
            finished: false,
            reservation,
        })
    }

    /// Returns how many bytes are written, those of earlier attempts included: where a download
    /// goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns how many of those bytes are in [`BlobWriter::file`]; the rest waits in memory for more,
    /// or for the commit.
    pub fn readable_bytes(&self) -> u64 {
        self.file.written_bytes()
    }

    /// Returns a handle to read what is written, at offsets. It is good also after the commit.
    pub fn file(&self) -> Result<File> {
        let file = self.file.get_ref().try_clone();
        file.map_err(|error| Error::io("cannot read a blob that is being written", error))
    }

    /// Returns the running digest of those bytes.
    pub fn hasher(&self) -> Sha256 {
        self.hasher.clone()
    }

    /// Forgets all bytes, as when a server can't go on from the middle.
    pub fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        let mut file = self.file.get_ref();
        let restart = file.set_len(0).and_then(|()| file.rewind());
        restart.map_err(|error| Error::io("cannot restart a blob", error))?;
        self.file.restart(0);
        self.hasher = Sha256::new();
        self.offset = 0;
        Ok(())
    }

    /// Writes `bytes` without adding them to the digest.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reservation
            .cover(content_bytes(self.offset + bytes.len() as u64))
            .map_err(into_io)?;
        let count = self.file.write(bytes)?;
        self.offset += count as u64;
        Ok(count)
    }

    /// Verifies the blob, stores and protects it, and returns its digest.
    ///
    /// # Errors
    /// `Corrupt` if it is not the expected one; the bytes are dropped then, so that the next
    /// attempt starts afresh.
    pub fn commit(mut self) -> Result<Digest> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some((expected, size_bytes)) = &self.expected
            && (*expected != digest || *size_bytes != self.offset)
        {
            let error = Error::corrupt(format_args!(
                "blob `{expected}` of {size_bytes} bytes arrived as `{digest}` of {} bytes",
                self.offset
            ));
            self.remove_file();
            return Err(error);
        }
        self.store_as(&digest)?;
        Ok(digest)
    }

    fn store_as(mut self, digest: &Digest) -> Result<()> {
        let store = self.lease.store().clone();
        let failed =
            |error: io::Error| Error::io(format_args!("cannot store blob `{digest}`"), error);
        self.file.flush().map_err(failed)?;
        let stat = rustix::fs::fstat(self.file.get_ref()).map_err(|errno| failed(errno.into()))?;
        self.reservation.cover(disk::allocated_of(&stat))?;
        let _publication = store.lock_publication()?;
        if store.has_blob(digest)? {
            self.remove_file();
        } else {
            std::fs::rename(&self.path, store.layout().blob(digest)).map_err(failed)?;
            self.finished = true;
        }
        store.write(|tx| {
            let mut insert = tx.prepare_cached(
                "INSERT OR IGNORE INTO blobs \
                   (digest, size_bytes, allocated_bytes, created_at, unsettled) \
                 VALUES (?, ?, ?, ?, ?)",
            )?;
            let count = insert.execute(params![
                digest.as_str(),
                self.offset as i64,
                disk::allocated_of(&stat) as i64,
                store.now(),
                store.boot()
            ])?;
            if count > 0 {
                store.settle_soon();
            }
            self.lease.protect(&[], std::slice::from_ref(digest))
        })
    }

    fn remove_file(&mut self) {
        self.finished = true;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "an unfinished blob is left for the next prune");
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((digest, size_bytes)) = &self.expected
            && bytes.len() as u64 > size_bytes - self.offset
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                Error::new(
                    ErrorKind::Corrupt,
                    format_args!("blob `{digest}` is longer than its {size_bytes} bytes"),
                ),
            ));
        }
        let count = self.append(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.finished && (self.resumable.is_none() || self.offset == 0) {
            self.remove_file();
        }
    }
}

pub(crate) fn require_sha256(digest: &Digest) -> Result<()> {
    if digest.algorithm() == "sha256" {
        Ok(())
    } else {
        Err(Error::invalid(format_args!(
            "`{digest}`: only sha256 blobs can be stored"
        )))
    }
}
