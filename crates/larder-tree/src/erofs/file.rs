use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::fs::{self, FileType, SeekFrom, Stat};
use rustix::io::Errno;

use super::format::{BLOCK_BYTES, Location};
use super::inodes::InodeRef;
use super::stream::Stream;
use super::tree::{Attributes, DirId};
use super::writer::{Content, Writer};

/// How much of a source is read at once.
const READ_BYTES: usize = 256 << 10;

/// Files below this size are read and written; asking the kernel for more costs more.
const SMALL_BYTES: u64 = 64 << 10;

/// A file of an image that is being written: its whole blocks are in the stream, and nothing else
/// comes there until it is complete.
#[derive(Debug)]
pub struct OpenFile {
    pub(super) dir: DirId,
    pub(super) name: OsString,
    pub(super) attributes: Attributes,
    first_block: Option<u32>,
    /// The extra device that has its blocks; `None` if the image itself does.
    pub(super) device: Option<usize>,
    /// The length of all that is in the stream, or left out of it, or on the device.
    streamed: u64,
    /// What follows that: less than a block.
    tail: Vec<u8>,
    /// Its path, and the digest of the file that it is a copy of.
    pub(super) source: Option<(PathBuf, [u8; 32])>,
}

impl OpenFile {
    pub(super) fn new(dir: DirId, name: &OsStr, attributes: Attributes) -> Self {
        Self {
            dir,
            name: name.to_owned(),
            attributes,
            first_block: None,
            device: None,
            streamed: 0,
            tail: Vec::new(),
            source: None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.streamed + self.tail.len() as u64
    }

    pub(super) fn write(&mut self, mut bytes: &[u8], stream: &mut Stream) -> io::Result<()> {
        if !self.tail.is_empty() {
            let missing = bytes.len().min(BLOCK_BYTES - self.tail.len());
            self.tail.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.tail.len() < BLOCK_BYTES {
                return Ok(());
            }
            let block = std::mem::take(&mut self.tail);
            self.stream_blocks(&block, stream)?;
        }
        let whole = bytes.len() - bytes.len() % BLOCK_BYTES;
        self.stream_blocks(&bytes[..whole], stream)?;
        self.tail.extend_from_slice(&bytes[whole..]);
        Ok(())
    }

    /// Takes for the begin of an empty file what a device has from a block of that number on, `length` bytes. What
    /// is written behind must be less than a block.
    pub(super) fn share(&mut self, device: usize, block: u32, length: u64) {
        debug_assert_eq!(self.size(), 0, "its blocks follow each other");
        self.device = Some(device);
        self.first_block = Some(block);
        self.streamed = length;
    }

    /// Leaves a hole up to `offset`, as far as it holds whole blocks.
    pub(super) fn skip_to(&mut self, offset: u64, stream: &mut Stream) -> io::Result<()> {
        const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        let missing = offset.checked_sub(self.size()).ok_or(Errno::INVAL)?;
        let to_block = (BLOCK_BYTES - self.tail.len()) % BLOCK_BYTES;
        let to_block = missing.min(to_block as u64);
        self.write(&ZEROS[..to_block as usize], stream)?;
        let missing = missing - to_block;
        let blocks = missing / BLOCK_BYTES as u64;
        if blocks > 0 {
            self.begin(stream);
            stream.skip(blocks)?;
            self.streamed += blocks * BLOCK_BYTES as u64;
        }
        let rest = (missing % BLOCK_BYTES as u64) as usize;
        self.write(&ZEROS[..rest], stream)
    }

    /// Copies a whole file with its holes; returns how many bytes it had.
    pub(super) fn copy(
        &mut self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        stream: &mut Stream,
    ) -> io::Result<u64> {
        let size = stat.st_size as u64;
        let is_sparse = (stat.st_blocks as u64).saturating_mul(512) < size;
        if size < SMALL_BYTES {
            // One byte more than an empty file has tells of one that isn't; any other that grows has
            // another time when the caller looks again.
            self.read(source, size.max(1), stream)?;
        } else if is_sparse {
            self.copy_sparse(source, size, stream)?;
        } else {
            self.copy_range(source, 0, size, stream)?;
            // What came behind the end that was told: the file changed.
            self.read(source, u64::MAX, stream)?;
        }
        Ok(self.size())
    }

    fn copy_sparse(
        &mut self,
        source: BorrowedFd<'_>,
        size: u64,
        stream: &mut Stream,
    ) -> io::Result<()> {
        let mut at = 0;
        while at < size {
            let start = match fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start.min(size),
                // Nothing but a hole follows.
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno.into()),
            };
            at = fs::seek(source, SeekFrom::Hole(start))?.min(size);
            self.skip_to(start, stream)?;
            self.copy_range(source, start, at - start, stream)?;
            if self.size() < at {
                break;
            }
        }
        self.skip_to(size.max(self.size()), stream)
    }

    /// Copies `length` bytes from `offset` on, whole blocks within the kernel. Leaves `source`
    /// where it read last.
    pub(super) fn copy_range(
        &mut self,
        source: BorrowedFd<'_>,
        offset: u64,
        length: u64,
        stream: &mut Stream,
    ) -> io::Result<()> {
        let mut copied = 0;
        if self.tail.is_empty() && length >= SMALL_BYTES {
            self.begin(stream);
            let whole = length - length % BLOCK_BYTES as u64;
            copied = stream.append_range(source, offset, whole)?;
            self.streamed += copied;
        }
        fs::seek(source, SeekFrom::Start(offset + copied))?;
        self.read(source, length - copied, stream)
    }

    /// Copies up to `limit` bytes from where `source` stands.
    fn read(&mut self, source: BorrowedFd<'_>, limit: u64, stream: &mut Stream) -> io::Result<()> {
        thread_local! {
            static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; READ_BYTES]);
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut missing = limit;
            while missing > 0 {
                let wanted = missing.min(READ_BYTES as u64) as usize;
                match rustix::io::read(source, &mut buffer[..wanted]) {
                    Ok(0) => break,
                    Ok(count) => {
                        self.write(&buffer[..count], stream)?;
                        missing -= count as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(())
        })
    }

    /// Places the inode, with what isn't in the stream yet.
    pub(super) fn place(&self, writer: &mut Writer) -> io::Result<InodeRef> {
        let content = Content {
            type_bits: FileType::RegularFile.as_raw_mode(),
            size: self.size(),
            location: Location::Data(self.first_block),
            tail: &self.tail,
        };
        writer.place(&self.attributes, content, 1)
    }

    fn stream_blocks(&mut self, blocks: &[u8], stream: &mut Stream) -> io::Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.begin(stream);
        stream.append(blocks)?;
        self.streamed += blocks.len() as u64;
        Ok(())
    }

    fn begin(&mut self, stream: &Stream) {
        let block = stream.next_block() as u32;
        self.first_block.get_or_insert(block);
    }
}
