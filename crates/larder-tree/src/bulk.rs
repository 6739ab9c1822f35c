//! Large files that are written once and not read at once.
//!
//! What a program writes stays in memory until the kernel needs the room. For gigabytes that
//! nobody reads soon this is waste: it displaces what others need, and pages that were not in use
//! before cost a virtual machine several times what writing into them does. [`BulkFile`] lets
//! them go when they are on the disk, [`BulkReader`] when they were read.
//!
//! **Limitations**: Linux 6.14 and a file system that takes part (ext4, XFS, btrfs); elsewhere
//! pages stay as usual.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::unix::fs::FileExt;

use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

/// The first bytes of a file stay in memory: small files are read again soon.
const KEPT_BYTES: u64 = 64 << 20;

/// How much is written at once. Pages that two writes share go to the disk twice.
const WRITE_BYTES: usize = 1 << 20;

/// `RWF_DONTCACHE` (since Linux 6.14), which rustix doesn't name yet.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// To read and write where the file stands, as `read` and `write` do.
const AT_CURRENT_OFFSET: u64 = u64::MAX;

/// A file that is written from where it stands to its end.
///
/// It is buffered: what was written last is in the file after [`flush`](Write::flush), or when this
/// value goes.
#[derive(Debug)]
pub struct BulkFile {
    file: File,
    offset: u64,
    pending: Vec<u8>,
    /// Whether the kernel and the file system can let pages go, as far as is known.
    lets_go: bool,
}

impl BulkFile {
    /// Writes to `file`, which stands at `offset`.
    pub fn new(file: File, offset: u64) -> Self {
        Self {
            file,
            offset,
            pending: Vec::new(),
            lets_go: true,
        }
    }

    /// Returns the file, which may lack what was written last.
    pub fn get_ref(&self) -> &File {
        &self.file
    }

    /// Returns how many bytes are in the file, up to where it stands.
    pub fn written_bytes(&self) -> u64 {
        self.offset
    }

    /// Forgets what is not in the file yet, and goes on at `offset`, where the file was put.
    pub fn restart(&mut self, offset: u64) {
        self.pending.clear();
        self.offset = offset;
    }

    /// Returns how much the next write to the file takes, so that it ends at a multiple of its
    /// size.
    fn room(&self) -> usize {
        WRITE_BYTES - (self.offset % WRITE_BYTES as u64) as usize
    }

    /// Writes some of `bytes` to the file.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = loop {
            if !self.lets_go || self.offset < KEPT_BYTES {
                break self.file.write(bytes)?;
            }
            let slices = [IoSlice::new(bytes)];
            match pwritev2(&self.file, &slices, AT_CURRENT_OFFSET, DONT_CACHE) {
                Ok(count) => break count,
                Err(errno) if is_refusal(errno) => self.lets_go = false,
                Err(errno) => return Err(errno.into()),
            }
        };
        self.offset += count as u64;
        Ok(count)
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        let done = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match self.write_some(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let written = pending.len() - rest.len();
        self.pending = pending;
        self.pending.drain(..written);
        done
    }
}

impl Write for BulkFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room() - self.pending.len();
        if self.pending.is_empty() && bytes.len() >= room {
            return self.write_some(&bytes[..room]);
        }
        let count = bytes.len().min(room);
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(WRITE_BYTES);
        }
        self.pending.extend_from_slice(&bytes[..count]);
        if count == room {
            self.write_pending()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_pending()
    }
}

impl Drop for BulkFile {
    fn drop(&mut self) {
        // Whoever wants to know flushes before.
        let _ = self.write_pending();
    }
}

/// Reads a large file, and leaves the page cache as it was. Takes large buffers: it has none.
#[derive(Debug)]
pub struct BulkReader {
    file: File,
    /// Whether the kernel and the file system can let pages go, as far as is known.
    lets_go: bool,
}

impl BulkReader {
    /// Reads `file` from where it stands.
    pub fn new(file: File) -> Self {
        Self {
            file,
            lets_go: true,
        }
    }
}

impl Read for BulkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.lets_go {
            let mut slices = [IoSliceMut::new(buffer)];
            match preadv2(&self.file, &mut slices, AT_CURRENT_OFFSET, DONT_CACHE) {
                Ok(count) => return Ok(count),
                Err(errno) if is_refusal(errno) => self.lets_go = false,
                Err(errno) => return Err(errno.into()),
            }
        }
        self.file.read(buffer)
    }
}

/// Fills `buffer` with a part of a large file, and leaves the page cache as it was.
///
/// # Errors
/// Those of reading; `UnexpectedEof` if the file is too short.
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let mut slices = [IoSliceMut::new(buffer)];
        match preadv2(file, &mut slices, offset, DONT_CACHE) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) if is_refusal(errno) => return file.read_exact_at(buffer, offset),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS | Errno::SPIPE | Errno::PERM
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use super::*;

    #[test]
    fn the_file_gets_what_was_written_in_pieces_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let start = KEPT_BYTES - 5000;
        let mut file = File::create(&path).unwrap();
        file.seek(SeekFrom::Start(start)).unwrap();
        let mut file = BulkFile::new(file, start);
        let mut expected = vec![0; start as usize];
        let lengths = [3000, 4000, 1, 1 << 20, 3 << 20, 17, 700_000];
        for (number, length) in lengths.into_iter().enumerate() {
            let bytes = vec![number as u8 + 1; length];
            file.write_all(&bytes).unwrap();
            expected.extend(bytes);
        }
        drop(file);
        let mut reader = BulkReader::new(File::open(&path).unwrap());
        let mut actual = Vec::new();
        reader.read_to_end(&mut actual).unwrap();
        assert!(actual == expected);
        let file = File::open(&path).unwrap();
        let (at, end) = (start as usize + 17, expected.len() as u64);
        let mut part = vec![0; 9000];
        read_exact_at(&file, &mut part, at as u64).unwrap();
        assert!(part == expected[at..at + 9000]);
        let error = read_exact_at(&file, &mut part, end - 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_error_of_the_disk_is_told() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut full = BulkFile::new(full, KEPT_BYTES);
        let written = full.write_all(&vec![1; 2 * WRITE_BYTES]);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
