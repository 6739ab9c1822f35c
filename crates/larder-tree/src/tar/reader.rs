use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::Timespec;

use super::block::{self, BLOCK_SIZE, Block};
use super::pax::{PaxRecords, malformed};
use super::sparse::SparseMap;
use super::{Header, Kind, Segment};
use crate::{Error, ErrorKind, Result};

/// How large an extended header or a long name may be.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// Reads the entries of an archive one after the other from a stream.
///
/// As [`Read`] it gives the current entry's stored data: for a sparse file the segments without
/// the holes between them. [`contents`](Self::contents) gives the holes as zeros.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    /// Bytes of the current entry not read yet, and those that pad it.
    remaining: u64,
    padding: u64,
    size: u64,
    segments: Vec<Segment>,
    is_finished: bool,
}

/// The contents of one entry; see [`Reader::contents`].
#[derive(Debug)]
pub struct Contents<'a, R> {
    reader: &'a mut Reader<R>,
    segment: usize,
    position: u64,
}

impl<R: Read> Reader<R> {
    /// Starts to read an uncompressed archive. Reads are small: give it a buffered stream.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            remaining: 0,
            padding: 0,
            size: 0,
            segments: Vec::new(),
            is_finished: false,
        }
    }

    /// Skips what is left of the current entry and returns the next one; `None` at the end of the
    /// archive, which is two blocks of zeros or the end of the stream.
    ///
    /// # Errors
    /// `InvalidInput` for what isn't a tar, or is cut short; `LimitExceeded` for extended headers
    /// beyond all reason; `Unsupported` for a type of entry that has no meaning in a file tree.
    pub fn next_entry(&mut self) -> Result<Option<Header>> {
        if self.is_finished {
            return Ok(None);
        }
        self.skip(self.remaining + self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        let mut pax = PaxRecords::default();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            let Some(block) = self.read_header_block()? else {
                self.is_finished = true;
                return Ok(None);
            };
            match block.type_flag() {
                b'x' | b'X' => pax = PaxRecords::parse(&self.read_extension(&block)?)?,
                b'L' => long_name = Some(self.read_long_text(&block)?),
                b'K' => long_link = Some(self.read_long_text(&block)?),
                // Global records, and the label of a volume.
                b'g' | b'V' => {
                    let size = stored_size(&block)?;
                    self.skip(size + block::padding(size))?;
                }
                _ => {
                    pax.path = pax.path.or(long_name);
                    pax.link_path = pax.link_path.or(long_link);
                    return self.start_entry(&block, pax).map(Some);
                }
            }
        }
    }

    /// Returns the current entry's runs of data in order. A file that isn't sparse has one, or
    /// none if it is empty.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns a reader of the current entry's contents with holes as zeros. It must be asked for
    /// before data of the entry is read.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents {
            reader: self,
            segment: 0,
            position: 0,
        }
    }

    /// Returns the stream, which stands wherever reading stopped.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Returns the next block that isn't zeros, its checksum checked.
    fn read_header_block(&mut self) -> Result<Option<Block>> {
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        if block.is_zero() {
            return match self.read_block()? {
                Some(second) if !second.is_zero() => Err(malformed("a lone block of zeros")),
                _ => Ok(None),
            };
        }
        if !block.has_valid_checksum() {
            return Err(malformed("a header's checksum is wrong"));
        }
        Ok(Some(block))
    }

    /// Returns the next block, `None` at the end of the stream.
    fn read_block(&mut self) -> Result<Option<Block>> {
        let mut block = Block::ZERO;
        let mut filled = 0;
        while filled < BLOCK_SIZE {
            match self.inner.read(&mut block.0[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("cannot read the archive", error)),
            }
        }
        Ok(Some(block))
    }

    fn read_extension(&mut self, block: &Block) -> Result<Vec<u8>> {
        let size = stored_size(block)?;
        if size > MAX_EXTENSION_BYTES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("an extended tar header has more than {MAX_EXTENSION_BYTES} bytes"),
            ));
        }
        let mut bytes = vec![0; size as usize];
        self.inner.read_exact(&mut bytes).map_err(read_failed)?;
        self.skip(block::padding(size))?;
        Ok(bytes)
    }

    fn read_long_text(&mut self, block: &Block) -> Result<Vec<u8>> {
        let mut bytes = self.read_extension(block)?;
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            bytes.truncate(end);
        }
        Ok(bytes)
    }

    fn start_entry(&mut self, block: &Block, pax: PaxRecords) -> Result<Header> {
        let mut stored = match pax.size {
            Some(size) => size,
            None => stored_size(block)?,
        };
        let has_sparse_records = pax.sparse.major.is_some() || pax.sparse.map.is_some();
        let path = pax.sparse.name.clone().or(pax.path);
        let path = path.unwrap_or_else(|| block.path());
        let link = || {
            let text = pax.link_path.as_deref();
            to_path(text.unwrap_or_else(|| block.text(block::LINK_NAME)))
        };
        let device = || {
            Ok((
                device_number(block, block::DEV_MAJOR)?,
                device_number(block, block::DEV_MINOR)?,
            ))
        };
        let kind = match block.type_flag() {
            // Formats older than ustar mark a directory by its name.
            b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(link()),
            b'2' => Kind::Symlink(link()),
            b'3' => device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "entry `{}` has the unknown type `{}`",
                        to_path(&path).display(),
                        char::from(other).escape_default()
                    ),
                ));
            }
        };
        // Entries without contents may carry a size; only a dumped directory has data with it.
        if kind != Kind::File && block.type_flag() != b'D' {
            stored = 0;
        }

        self.padding = block::padding(stored);
        let sparse = if block.type_flag() == b'S' {
            Some(SparseMap::from_gnu(block, &mut self.inner, stored)?)
        } else if has_sparse_records && kind == Kind::File {
            SparseMap::from_pax(pax.sparse, &mut self.inner, &mut stored)?
        } else {
            None
        };
        self.remaining = stored;
        self.segments.clear();
        self.size = 0;
        if let Some(map) = sparse {
            self.size = map.real_size;
            self.segments = map.segments;
        } else if kind == Kind::File {
            self.size = stored;
            if stored > 0 {
                self.segments.push(Segment {
                    offset: 0,
                    length: stored,
                });
            }
        }

        Ok(Header {
            path: to_path(&path),
            kind,
            mode: (block.number(block::MODE)? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| id(block, block::UID), Ok)?,
            gid: pax.gid.map_or_else(|| id(block, block::GID), Ok)?,
            size: self.size,
            mtime: match pax.mtime {
                Some(time) => time,
                None => Timespec {
                    tv_sec: block.number(block::MTIME)?,
                    tv_nsec: 0,
                },
            },
            xattrs: pax.xattrs,
        })
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let skipped =
            io::copy(&mut (&mut self.inner).take(count), &mut io::sink()).map_err(read_failed)?;
        if skipped == count {
            Ok(())
        } else {
            Err(truncated())
        }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(truncated().into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let segment = self.reader.segments.get(self.segment).copied();
        let (limit, is_data) = match segment {
            Some(segment) if self.position >= segment.offset => {
                (segment.offset + segment.length, true)
            }
            Some(segment) => (segment.offset, false),
            None => (self.reader.size, false),
        };
        let wanted = usize::try_from(limit - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(wanted);
        let count = if is_data {
            self.reader.read(&mut buffer[..wanted])?
        } else {
            buffer[..wanted].fill(0);
            wanted
        };
        self.position += count as u64;
        if is_data && self.position == limit {
            self.segment += 1;
        }
        Ok(count)
    }
}

fn stored_size(block: &Block) -> Result<u64> {
    u64::try_from(block.number(block::SIZE)?).map_err(|_| malformed("a negative size"))
}

fn id(block: &Block, field: std::ops::Range<usize>) -> Result<u32> {
    u32::try_from(block.number(field)?).map_err(|_| malformed("an owner out of range"))
}

fn device_number(block: &Block, field: std::ops::Range<usize>) -> Result<u32> {
    u32::try_from(block.number(field)?).map_err(|_| malformed("a device number out of range"))
}

fn to_path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

fn read_failed(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        truncated()
    } else {
        Error::io("cannot read the archive", error)
    }
}

fn truncated() -> Error {
    Error::new(ErrorKind::InvalidInput, "the archive is truncated")
}
