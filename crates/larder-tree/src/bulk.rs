//! Large files that are written once and not read at once.
//!
//! What a program writes stays in memory until the kernel needs the room. For gigabytes that
//! nobody reads soon this is waste: it displaces what others need, pages that were not in use
//! before cost a virtual machine several times what writing into them does, and each byte is
//! copied once more. [`BulkFile`], [`BulkReader`] and [`BulkSource`] go past the page cache: the
//! disk takes bytes from where they are, and puts them where they are wanted.
//!
//! **Limitations**: where a file system can't do that, pages are used and let go as soon as they
//! are on the disk or were read (Linux 6.14); elsewhere they stay as usual.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwrite, pwritev2};

/// The first bytes of a file stay in memory: small files are read again soon.
pub(crate) const KEPT_BYTES: u64 = 64 << 20;

/// How much is written or read at once.
const PART_BYTES: usize = 4 << 20;

/// How much of the first bytes is written at once: of the memory that has room for a part, small
/// files use no more.
const FIRST_PART_BYTES: usize = 1 << 20;

/// Where bytes must lie in memory and in the file, and what their number must be a multiple of, to
/// go past the page cache: no disk and no file system asks for more.
const ALIGNMENT: usize = 4096;

/// How much a [`BulkSource`] reads ahead once it is read in order.
const AHEAD_BYTES: usize = 2 << 20;

/// How much of what was read it keeps: those who read in order may be a bit late.
const BEHIND_BYTES: usize = 1 << 20;

/// `RWF_DONTCACHE` (since Linux 6.14), which rustix doesn't name yet.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Part of a large file: room for 4 MiB that disks can read and write.
#[derive(Debug)]
pub struct Part {
    bytes: Vec<u8>,
    /// Where the room begins.
    start: usize,
    length: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self::with_room(PART_BYTES)
    }
}

impl Part {
    fn with_room(room: usize) -> Self {
        let bytes = vec![0; room + ALIGNMENT];
        let start = bytes.as_ptr().addr().wrapping_neg() % ALIGNMENT;
        Self {
            bytes,
            start,
            length: 0,
        }
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    /// Returns the room after the bytes.
    fn rest(&mut self) -> &mut [u8] {
        let end = self.bytes.len() - ALIGNMENT + self.start;
        &mut self.bytes[self.start + self.length..end]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.rest()[..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Forgets the first bytes.
    fn drop_first(&mut self, count: usize) {
        let rest = self.start + count..self.start + self.length;
        self.bytes.copy_within(rest, self.start);
        self.length -= count;
    }
}

/// How the page cache is kept out of it, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Past it.
    Direct,
    /// Its pages are let go.
    LetGo,
    /// Not at all.
    Cached,
}

impl Way {
    fn of(file: &File) -> Self {
        // With a pipe, the flag would mean something else.
        let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
        match fstat(file) {
            Ok(stat) if is_file(stat.st_mode) => Self::Direct,
            _ => Self::Cached,
        }
    }
}

/// A file that is written from a place on to its end.
///
/// It is buffered: what was written last is in the file after [`flush`](Write::flush), or when this
/// value goes.
#[derive(Debug)]
pub struct BulkFile {
    file: File,
    /// The same file, past the page cache. Whoever else reads or writes through a handle of `file`
    /// knows nothing of it.
    direct: Option<OwnedFd>,
    is_regular: bool,
    offset: u64,
    pending: Option<Part>,
    way: Way,
}

impl BulkFile {
    /// Writes to `file` from `offset` on, where it stands.
    pub fn new(file: File, offset: u64) -> Self {
        let way = Way::of(&file);
        Self {
            file,
            direct: None,
            is_regular: way != Way::Cached,
            offset,
            pending: None,
            way,
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
        self.pending = None;
        self.offset = offset;
    }

    /// Returns how much the next write to the file takes, so that it ends at a multiple of its
    /// size.
    fn room(&self) -> usize {
        let size = if self.offset < KEPT_BYTES {
            FIRST_PART_BYTES
        } else {
            PART_BYTES
        };
        size - (self.offset % size as u64) as usize
    }

    /// Writes some of `bytes` to the file.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = loop {
            let whole = bytes.len() / ALIGNMENT * ALIGNMENT;
            let is_aligned = whole > 0
                && self.offset.is_multiple_of(ALIGNMENT as u64)
                && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT);
            let way = if self.offset < KEPT_BYTES {
                Way::Cached
            } else {
                self.way
            };
            let is_direct = way == Way::Direct && is_aligned;
            if is_direct && self.direct.is_none() {
                match open_direct(&self.file) {
                    Ok(direct) => self.direct = Some(direct),
                    Err(_) => self.way = Way::LetGo,
                }
                continue;
            }
            let written = match (&self.direct, way) {
                (Some(direct), _) if is_direct => pwrite(direct, &bytes[..whole], self.offset),
                (_, Way::Direct | Way::LetGo) => {
                    let slices = [IoSlice::new(bytes)];
                    pwritev2(&self.file, &slices, self.offset, DONT_CACHE)
                }
                (_, Way::Cached) if self.is_regular => pwrite(&self.file, bytes, self.offset),
                (_, Way::Cached) => rustix::io::write(&self.file, bytes),
            };
            match written {
                Ok(count) => break count,
                Err(errno) if is_refusal(errno) && is_direct => self.way = Way::LetGo,
                Err(errno) if is_refusal(errno) && way != Way::Cached => self.way = Way::Cached,
                Err(errno) => return Err(errno.into()),
            }
        };
        self.offset += count as u64;
        Ok(count)
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let Some(mut part) = self.pending.take() else {
            return Ok(());
        };
        let mut written = 0;
        let done = loop {
            let rest = &part.as_slice()[written..];
            if rest.is_empty() {
                break Ok(());
            }
            match self.write_some(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        part.drop_first(written);
        self.pending = Some(part);
        done
    }
}

impl Write for BulkFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room();
        let pending = self.pending.get_or_insert_default();
        let room = room - pending.length;
        let count = bytes.len().min(room);
        pending.push(&bytes[..count]);
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

/// Reads a large file from its beginning on.
#[derive(Debug)]
pub struct BulkReader {
    file: File,
    offset: u64,
    end: u64,
    way: Way,
    is_direct: bool,
}

impl BulkReader {
    /// Reads the first `length` bytes of `file`.
    pub fn new(file: File, length: u64) -> Self {
        Self {
            way: Way::of(&file),
            file,
            offset: 0,
            end: length,
            is_direct: false,
        }
    }

    /// Replaces what is in `part` by what comes next; with nothing at the end.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(&mut self, part: &mut Part) -> io::Result<()> {
        part.length = 0;
        let wanted = self.end - self.offset;
        if wanted == 0 {
            return Ok(());
        }
        let count = self.read_some(part.rest())? as u64;
        part.length = count.min(wanted) as usize;
        self.offset += part.length as u64;
        Ok(())
    }

    fn read_some(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            let is_direct = self.way == Way::Direct
                && self.offset >= KEPT_BYTES
                && self.offset.is_multiple_of(ALIGNMENT as u64);
            if is_direct != self.is_direct {
                match set_direct(&self.file, is_direct) {
                    Ok(()) => self.is_direct = is_direct,
                    Err(_) if is_direct => {
                        self.way = Way::LetGo;
                        continue;
                    }
                    Err(errno) => return Err(errno.into()),
                }
            }
            let read = if is_direct || self.way == Way::Cached || self.offset < KEPT_BYTES {
                rustix::io::pread(&self.file, &mut *room, self.offset)
            } else {
                let mut slices = [IoSliceMut::new(room)];
                preadv2(&self.file, &mut slices, self.offset, DONT_CACHE)
            };
            match read {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(errno) if is_refusal(errno) && is_direct => self.way = Way::LetGo,
                Err(errno) if is_refusal(errno) && self.way == Way::LetGo => {
                    self.way = Way::Cached;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Reads parts of a large file, by several threads, and mostly in order.
#[derive(Debug)]
pub struct BulkSource {
    file: File,
    is_direct: AtomicBool,
    window: Mutex<Window>,
}

/// What was read last.
#[derive(Debug)]
struct Window {
    part: Part,
    /// Where it begins in the file, a multiple of what is needed.
    from: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.from + self.part.length as u64
    }

    fn get(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let from = usize::try_from(offset.checked_sub(self.from)?).ok()?;
        let bytes = self.part.as_slice().get(from..from.checked_add(length)?)?;
        Some(bytes.to_vec())
    }
}

impl BulkSource {
    /// Reads `file`.
    pub fn new(file: File) -> Self {
        let is_large = file.metadata().is_ok_and(|it| it.len() > KEPT_BYTES);
        let is_direct =
            is_large && Way::of(&file) == Way::Direct && set_direct(&file, true).is_ok();
        Self {
            file,
            is_direct: is_direct.into(),
            window: Mutex::new(Window {
                part: Part::with_room(if is_direct {
                    BEHIND_BYTES + AHEAD_BYTES
                } else {
                    0
                }),
                from: 0,
            }),
        }
    }

    /// Returns `length` bytes from `offset` on.
    ///
    /// # Errors
    /// Those of reading; `UnexpectedEof` if the file is too short.
    pub fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if self.is_direct.load(Ordering::Relaxed) {
            let pieces = (0..length).step_by(BEHIND_BYTES).map(|start| {
                let length = BEHIND_BYTES.min(length - start);
                self.read_direct(offset + start as u64, length)
            });
            match pieces.collect::<io::Result<Vec<_>>>().map(joined) {
                Err(error) if refuses(&error) => {
                    self.is_direct.store(false, Ordering::Relaxed);
                    set_direct(&self.file, false)?;
                }
                read => return read,
            }
        }
        let mut bytes = vec![0; length];
        read_exact_at(&self.file, &mut bytes, offset)?;
        Ok(bytes)
    }

    /// Reads into the window what is not there. Others wait meanwhile: most of them will find there
    /// what they look for.
    fn read_direct(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = window.get(offset, length) {
            return Ok(bytes);
        }
        let is_next = window.part.length > 0
            && (window.from..=window.end() + BEHIND_BYTES as u64).contains(&offset)
            && window.end().is_multiple_of(ALIGNMENT as u64);
        let wanted = if is_next {
            let behind = window.part.length.min(BEHIND_BYTES);
            let gone = window.part.length - behind;
            window.part.drop_first(gone);
            window.from += gone as u64;
            AHEAD_BYTES
        } else {
            window.part.length = 0;
            window.from = offset / ALIGNMENT as u64 * ALIGNMENT as u64;
            let end = (offset - window.from) as usize + length;
            end.next_multiple_of(ALIGNMENT)
        };
        let at = window.end();
        let room = &mut window.part.rest()[..wanted];
        let count = loop {
            match rustix::io::pread(&self.file, &mut *room, at) {
                Err(Errno::INTR) => {}
                read => break read?,
            }
        };
        window.part.length += count;
        match window.get(offset, length) {
            Some(bytes) => Ok(bytes),
            // It was read by halves, or ends before.
            None if count > 0 && is_next => {
                window.part.length = 0;
                drop(window);
                self.read_direct(offset, length)
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn joined(mut pieces: Vec<Vec<u8>>) -> Vec<u8> {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat(),
    }
}

/// Fills `buffer` with a part of a large file, and leaves the page cache as it was.
pub(crate) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
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

/// Opens a file once more, to be written past the page cache.
fn open_direct(file: &File) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Lets reads and writes of an open file go past the page cache, or through it.
fn set_direct(file: &File, is_on: bool) -> Result<(), Errno> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, is_on);
    fcntl_setfl(file, flags)
}

fn refuses(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(is_refusal)
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

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..length).map(step).collect()
    }

    fn read_all(file: &File, length: u64) -> Vec<u8> {
        let mut reader = BulkReader::new(file.try_clone().unwrap(), length);
        let (mut part, mut bytes) = (Part::default(), Vec::new());
        loop {
            reader.read(&mut part).unwrap();
            if part.as_slice().is_empty() {
                return bytes;
            }
            bytes.extend_from_slice(part.as_slice());
        }
    }

    #[test]
    fn the_file_gets_what_was_written_in_pieces_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for start in [KEPT_BYTES - 5000, KEPT_BYTES + 4096, KEPT_BYTES + 77] {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            let mut file = options.open(&path).unwrap();
            file.seek(SeekFrom::Start(start)).unwrap();
            let mut file = BulkFile::new(file, start);
            let mut expected = vec![0; start as usize];
            let lengths = [3000, 4000, 1, 5 << 20, 9 << 20, 17, 700_000];
            for (number, length) in lengths.into_iter().enumerate() {
                let bytes = noise(length, number as u64 + start);
                file.write_all(&bytes).unwrap();
                expected.extend(bytes);
                if number == 3 {
                    // Who reads meanwhile needs not know how it is written.
                    let reader = file.get_ref().try_clone().unwrap();
                    let mut there = [0; 100];
                    reader.read_exact_at(&mut there, start + 3001).unwrap();
                    assert!(there == expected[start as usize + 3001..][..100]);
                }
                if number == 4 {
                    file.flush().unwrap();
                }
            }
            drop(file);
            let file = File::open(&path).unwrap();
            let length = expected.len() as u64;
            assert!(read_all(&file, length) == expected);
            // No more than was asked for, and no more than there is.
            let less = KEPT_BYTES + 5000;
            assert!(read_all(&file, less) == expected[..less as usize]);
            assert!(read_all(&file, length + 9000) == expected);
        }
    }

    #[test]
    fn parts_are_what_the_file_has_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for length in [100_000, KEPT_BYTES as usize + 3_000_001] {
            let bytes = noise(length, length as u64);
            std::fs::write(&path, &bytes).unwrap();
            let source = BulkSource::new(File::open(&path).unwrap());
            let check = |offset: usize, count: usize| {
                let read = source.read_at(offset as u64, count);
                if let Some(expected) = bytes.get(offset..offset + count) {
                    assert!(read.unwrap() == expected, "{count} at {offset}");
                } else {
                    let error = read.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                }
            };
            // In order, with gaps and steps back, to the end and beyond it.
            let mut at = length.saturating_sub(20_000_000);
            for step in 0.. {
                check(at, 1 + step * 7919 % 400_000);
                check(at.saturating_sub(step * 3571 % 900_000), 5000);
                at += step * 104_729 % 500_000;
                if at > length + 1_000_000 {
                    break;
                }
            }
            for (offset, count) in [(0, 1), (4095, 2), (0, 70_000), (length - 1, 1), (length, 1)] {
                check(offset, count);
            }
            check(50_000, 2_000_000);
            std::thread::scope(|scope| {
                for thread in 0..3 {
                    let check = &check;
                    scope.spawn(move || {
                        for step in (thread..60).step_by(3) {
                            check(step * 50_000, 50_000);
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn an_error_of_the_disk_is_told() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut full = BulkFile::new(full, KEPT_BYTES);
        let written = full.write_all(&vec![1; 2 * PART_BYTES]);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
