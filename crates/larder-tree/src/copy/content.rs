use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, SeekFrom, Stat};
use rustix::io::Errno;

/// Bytes read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Files below this size are read and written; asking the kernel for more costs more.
const SMALL_BYTES: u64 = 16 << 10;

/// The most that the kernel copies at once, less than its own limit.
const MAX_RANGE_BYTES: usize = 1 << 30;

/// Copies the bytes of files, in the cheapest way that the file systems allow: sharing blocks,
/// copying within the kernel, or reading and writing.
#[derive(Debug, Default)]
pub struct ContentCopier {
    cannot_share: AtomicBool,
    cannot_copy_ranges: AtomicBool,
}

impl ContentCopier {
    /// Copies the bytes of `source`, whose attributes are `stat`, into the empty file
    /// `target`; returns how many there were.
    pub(crate) fn copy(
        &self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        target: BorrowedFd<'_>,
    ) -> Result<u64, Errno> {
        let size = stat.st_size as u64;
        if size < SMALL_BYTES {
            return read_through(source, |bytes| write_all(target, bytes));
        }
        if self.share(source, target)? {
            return Ok(size);
        }
        let is_sparse = (stat.st_blocks as u64).saturating_mul(512) < size;
        if !is_sparse {
            return self.copy_rest(source, target, u64::MAX);
        }
        self.copy_sparse(source, size, target)
    }

    fn share(&self, source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<bool, Errno> {
        if self.cannot_share.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match fs::ioctl_ficlone(target, source) {
            Ok(()) => Ok(true),
            Err(
                Errno::OPNOTSUPP
                | Errno::NOTTY
                | Errno::XDEV
                | Errno::INVAL
                | Errno::PERM
                | Errno::NOSYS,
            ) => {
                self.cannot_share.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Copies what holds data and leaves the holes between it.
    fn copy_sparse(
        &self,
        source: BorrowedFd<'_>,
        size: u64,
        target: BorrowedFd<'_>,
    ) -> Result<u64, Errno> {
        fs::ftruncate(target, size)?;
        let mut at = 0;
        while at < size {
            let start = match fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole follows.
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno),
            };
            let end = fs::seek(source, SeekFrom::Hole(start))?;
            fs::seek(source, SeekFrom::Start(start))?;
            fs::seek(target, SeekFrom::Start(start))?;
            if self.copy_rest(source, target, end - start)? == 0 {
                break;
            }
            at = end;
        }
        Ok(size)
    }

    /// Copies up to `limit` bytes from where both files stand.
    fn copy_rest(
        &self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        limit: u64,
    ) -> Result<u64, Errno> {
        let mut total = 0;
        while total < limit && !self.cannot_copy_ranges.load(Ordering::Relaxed) {
            let wanted = usize::try_from(limit - total).unwrap_or(usize::MAX);
            match fs::copy_file_range(source, None, target, None, wanted.min(MAX_RANGE_BYTES)) {
                Ok(0) => return Ok(total),
                Ok(count) => total += count as u64,
                Err(Errno::INTR) => {}
                Err(
                    Errno::NOSYS
                    | Errno::XDEV
                    | Errno::PERM
                    | Errno::INVAL
                    | Errno::OPNOTSUPP
                    | Errno::IO,
                ) => self.cannot_copy_ranges.store(true, Ordering::Relaxed),
                Err(errno) => return Err(errno),
            }
        }
        let limited = read_limited(source, limit - total, |bytes| write_all(target, bytes))?;
        Ok(total + limited)
    }
}

/// Gives the rest of `source` to `take`; returns how many bytes there were.
pub(super) fn read_through(
    source: BorrowedFd<'_>,
    take: impl FnMut(&[u8]) -> Result<(), Errno>,
) -> Result<u64, Errno> {
    read_limited(source, u64::MAX, take)
}

fn read_limited(
    source: BorrowedFd<'_>,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Errno>,
) -> Result<u64, Errno> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; BUFFER_BYTES]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        let mut total = 0;
        while total < limit {
            let wanted = (limit - total).min(BUFFER_BYTES as u64) as usize;
            match rustix::io::read(source, &mut buffer[..wanted]) {
                Ok(0) => break,
                Ok(count) => {
                    take(&buffer[..count])?;
                    total += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(total)
    })
}

/// Writes all of `bytes`.
pub(crate) fn write_all(target: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
