use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, SeekFrom, seek};
use rustix::io::Errno;

use super::decode::{
    ReadEntry, ReadInode, ReadSuperblock, XATTR_ENTRY_BYTES, damaged, read_entries, read_xattr,
    read_xattr_head, read_xattrs,
};
use super::files::{Files, Located};
use super::format::{BLOCK_BYTES, SLOT_BYTES};
use crate::bulk;
use crate::tar::{Segment, Xattrs};
use crate::{Error, Result};

/// How much is read at once, where small things lie; and how much of it is kept.
const WINDOW_BYTES: usize = 64 << 10;
const WINDOW_COUNT: usize = 64;

/// Files below this size are taken to have no holes.
const SPARSE_BYTES: u64 = 64 << 10;

/// The longest target of a symlink.
const MAX_TARGET_BYTES: u64 = 4096;

/// An inode of the largest form.
const INODE_BYTES: u64 = 64;

/// The tree in an image, read without the kernel: what takes a system call or two a file in a mounted
/// image takes none here, but a few for each part of it that holds many files.
///
/// The image may be damaged: then what is wrong with it is told by an error.
#[derive(Debug)]
pub struct Reader {
    files: Files,
    /// Of the file system's own blocks; its file may be longer.
    length: u64,
    superblock: ReadSuperblock,
    windows: Mutex<Vec<Option<Window>>>,
    /// Whether what is read is to be kept out of the page cache.
    is_large: bool,
}

/// A part of the image.
#[derive(Debug)]
struct Window {
    number: u64,
    bytes: Vec<u8>,
}

impl Reader {
    /// Opens the image in `files`, which is complete and doesn't change any more.
    ///
    /// # Errors
    /// `InvalidInput` for what is no image, or one that [`Image`](super::Image) has not written, and for one that
    /// lacks a device.
    pub fn open(files: impl Into<Files>) -> Result<Self> {
        let opened = Self::begin(files.into());
        opened.map_err(|error| Error::io("cannot read the image of a layer", error))
    }

    fn begin(files: Files) -> io::Result<Self> {
        let mut first = [0; BLOCK_BYTES];
        files.own().read_exact_at(&mut first, 0)?;
        let superblock = ReadSuperblock::decode(&first);
        let superblock = superblock.ok_or_else(|| damaged("it has no superblock"))?;
        let length = u64::from(superblock.block_count) * BLOCK_BYTES as u64;
        if files.own().metadata()?.len() < length {
            return Err(damaged("its end is missing"));
        }
        if files.devices().count() != superblock.device_count {
            return Err(damaged("an image that it uses is missing"));
        }
        Ok(Self {
            files,
            length,
            superblock,
            windows: Mutex::new((0..WINDOW_COUNT).map(|_| None).collect()),
            is_large: length > bulk::KEPT_BYTES,
        })
    }

    /// Returns the bytes that the file system takes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Returns the root directory.
    pub(crate) fn root(&self) -> io::Result<ReadInode> {
        self.inode(self.superblock.root)
    }

    /// Returns what lies at `path`, of which no part is followed; `None` if nothing does.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<ReadInode>> {
        let mut inode = self.root()?;
        for name in path {
            if inode.file_type() != FileType::Directory {
                return Ok(None);
            }
            let entries = self.list(&inode)?;
            let Ok(found) = entries.binary_search_by(|entry| entry.name.as_os_str().cmp(name))
            else {
                return Ok(None);
            };
            inode = self.inode(entries[found].number)?;
        }
        Ok(Some(inode))
    }

    /// Returns the inode `number`.
    pub(crate) fn inode(&self, number: u64) -> io::Result<ReadInode> {
        let mut bytes = [0; INODE_BYTES as usize];
        let offset = number.checked_mul(SLOT_BYTES as u64);
        let offset = offset.filter(|offset| *offset < self.length);
        let offset = offset.ok_or_else(|| damaged("an inode lies outside"))?;
        let bytes = &mut bytes[..INODE_BYTES.min(self.length - offset) as usize];
        self.read_at(offset, bytes)?;
        let inode = ReadInode::decode(number, bytes, self.superblock.epoch);
        inode.ok_or_else(|| damaged("an inode has no known form"))
    }

    /// Returns the entries of a directory, in the order of their names.
    pub(crate) fn list(&self, dir: &ReadInode) -> io::Result<Vec<ReadEntry>> {
        let mut entries = Vec::new();
        let mut block = [0; BLOCK_BYTES];
        let mut offset = 0;
        while offset < dir.size {
            let length = (dir.size - offset).min(BLOCK_BYTES as u64);
            let block = &mut block[..length as usize];
            self.read(dir, offset, block)?;
            read_entries(block, &mut entries).ok_or_else(|| damaged("a directory is none"))?;
            offset += length;
        }
        Ok(entries)
    }

    /// Returns all attributes of an inode.
    pub(crate) fn xattrs(&self, inode: &ReadInode) -> io::Result<Xattrs> {
        if inode.xattr_bytes == 0 {
            return Ok(Xattrs::new());
        }
        let unreadable = || damaged("attributes are unreadable");
        let (offset, _) = inode.places().ok_or_else(unreadable)?;
        let mut bytes = vec![0; inode.xattr_bytes];
        self.read_at(offset, &mut bytes)?;
        let (mut xattrs, shared) = read_xattrs(&bytes).ok_or_else(unreadable)?;
        let area = u64::from(self.superblock.xattr_block) * BLOCK_BYTES as u64;
        for place in shared {
            let mut head = [0; XATTR_ENTRY_BYTES];
            self.read_at(area + place, &mut head)?;
            let (name_bytes, value_bytes) = read_xattr_head(&head).ok_or_else(unreadable)?;
            let mut bytes = vec![0; XATTR_ENTRY_BYTES + name_bytes + value_bytes];
            self.read_at(area + place, &mut bytes)?;
            let (name, value) = read_xattr(&bytes).ok_or_else(unreadable)?;
            xattrs.insert(name, value);
        }
        Ok(xattrs)
    }

    /// Returns the target of a symlink.
    pub(crate) fn link_target(&self, link: &ReadInode) -> io::Result<PathBuf> {
        if link.size > MAX_TARGET_BYTES {
            return Err(damaged("the target of a symlink is too long"));
        }
        let mut target = vec![0; link.size as usize];
        self.read(link, 0, &mut target)?;
        Ok(OsStr::from_bytes(&target).into())
    }

    /// Fills `buffer` with what a file holds from `offset` on, which must be as much.
    pub(crate) fn read(&self, file: &ReadInode, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let outside = || damaged("data lies outside");
        let in_blocks = file.size - file.tail_bytes();
        let count = in_blocks.saturating_sub(offset).min(buffer.len() as u64);
        let (whole, tail) = buffer.split_at_mut(count as usize);
        if !whole.is_empty() {
            let block = file.first_block().ok_or_else(outside)?;
            let begin = u64::from(block) * BLOCK_BYTES as u64;
            let begin = begin.checked_add(offset).ok_or_else(outside)?;
            self.read_data(begin, whole)?;
        }
        if !tail.is_empty() {
            let (_, begin) = file.places().ok_or_else(outside)?;
            let skipped = offset + count - in_blocks;
            if skipped + tail.len() as u64 > file.tail_bytes() {
                return Err(outside());
            }
            self.read_at(begin + skipped, tail)?;
        }
        Ok(())
    }

    /// Returns where a file has data: what is a hole of the image is one of the file.
    pub(crate) fn segments(&self, file: &ReadInode) -> io::Result<Vec<Segment>> {
        let all = vec![Segment {
            offset: 0,
            length: file.size,
        }];
        let in_blocks = file.size - file.tail_bytes();
        let Some(block) = file.first_block().filter(|_| in_blocks >= SPARSE_BYTES) else {
            return Ok(all);
        };
        let Located {
            file: holder,
            offset: begin,
            ..
        } = self.locate(u64::from(block) * BLOCK_BYTES as u64, in_blocks)?;
        let mut segments = Vec::new();
        let mut offset = 0;
        while offset < in_blocks {
            let start = match seek(holder, SeekFrom::Data(begin + offset)) {
                Ok(start) if start - begin < in_blocks => start - begin,
                // Nothing but a hole follows.
                Ok(_) | Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => return Ok(all),
                Err(errno) => return Err(errno.into()),
            };
            offset = seek(holder, SeekFrom::Hole(begin + start))? - begin;
            segments.push(Segment {
                offset: start,
                length: offset.min(in_blocks) - start,
            });
        }
        if in_blocks < file.size {
            segments.push(Segment {
                offset: in_blocks,
                length: file.size - in_blocks,
            });
        }
        Ok(segments)
    }

    /// Returns where the whole blocks of a file's data are, if there are any, and what follows them.
    pub(super) fn content(&self, file: &ReadInode) -> io::Result<(Option<Located<'_>>, Vec<u8>)> {
        let mut tail = vec![0; file.tail_bytes() as usize];
        let in_blocks = file.size - tail.len() as u64;
        self.read(file, in_blocks, &mut tail)?;
        match file.first_block() {
            _ if in_blocks == 0 => Ok((None, tail)),
            // The last block may be one in part.
            Some(block) => {
                let begin = u64::from(block) * BLOCK_BYTES as u64;
                let length = in_blocks.next_multiple_of(BLOCK_BYTES as u64);
                Ok((Some(self.locate(begin, length)?), tail))
            }
            None => Err(damaged("data lies outside")),
        }
    }

    fn locate(&self, offset: u64, length: u64) -> io::Result<Located<'_>> {
        let located = self.files.locate(offset, length, self.length);
        located.ok_or_else(|| damaged("data lies outside"))
    }

    /// Fills `buffer` with data of a file, which may lie on a device.
    fn read_data(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let located = self.locate(offset, buffer.len() as u64)?;
        self.read_held(located.device, located.offset, buffer)
    }

    /// Fills `buffer` with what an extra device holds, or the image's own file.
    pub(super) fn read_held(
        &self,
        device: Option<usize>,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let Some(index) = device else {
            return self.read_at(offset, buffer);
        };
        let file = self.files.devices().nth(index);
        let file = file.ok_or_else(|| damaged("an image that it uses is missing"))?;
        // Only what is large lies there.
        bulk::read_exact_at(file, buffer, offset)
    }

    /// Fills `buffer` with what the image holds from `offset` on.
    pub(super) fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(damaged("something lies behind its end"));
        }
        if buffer.len() >= WINDOW_BYTES {
            return self.read_file(offset, buffer);
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        while !buffer.is_empty() {
            let bytes = self.window(&mut windows, offset / WINDOW_BYTES as u64)?;
            let bytes = &bytes[offset as usize % WINDOW_BYTES..];
            let count = bytes.len().min(buffer.len());
            buffer[..count].copy_from_slice(&bytes[..count]);
            buffer = &mut buffer[count..];
            offset += count as u64;
        }
        Ok(())
    }

    /// Returns the part of the image that `number` counts.
    fn window<'w>(&self, windows: &'w mut [Option<Window>], number: u64) -> io::Result<&'w [u8]> {
        let slot = &mut windows[number as usize % WINDOW_COUNT];
        let old = slot.take();
        let window = match old {
            Some(window) if window.number == number => window,
            old => {
                let mut bytes = old.map(|window| window.bytes).unwrap_or_default();
                let offset = number * WINDOW_BYTES as u64;
                let length = (self.length - offset).min(WINDOW_BYTES as u64);
                bytes.resize(length as usize, 0);
                self.read_file(offset, &mut bytes)?;
                Window { number, bytes }
            }
        };
        Ok(&slot.insert(window).bytes)
    }

    fn read_file(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.is_large {
            bulk::read_exact_at(self.files.own(), buffer, offset)
        } else {
            self.files.own().read_exact_at(buffer, offset)
        }
    }
}
