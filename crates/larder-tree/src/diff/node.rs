use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec};
use rustix::io::Errno;

use super::merged::Merged;
use crate::beneath::read_names;
use crate::erofs::{ReadEntry, ReadInode, Reader};
use crate::overlay::LayerDir;
use crate::tar::{Header, Kind, Segment};
use crate::xattr::Attributes;

/// How much of two files is compared at once.
const COMPARE_BYTES: usize = 64 << 10;

/// The device of all that lies in images: no mounted file system has this number.
const IMAGE_DEVICE: u64 = 0;

/// A directory that is held open, was read from an image, or is what layers show together.
#[derive(Clone, Copy)]
pub(super) enum Dir<'a> {
    Open(BorrowedFd<'a>),
    Listed(&'a Listing<'a>),
    Merged(&'a Merged<'a>),
}

/// A directory of an image.
pub(super) struct Listing<'a> {
    image: Image<'a>,
    /// The number of its inode.
    pub(super) number: u64,
    /// In the order of their names.
    entries: Vec<ReadEntry>,
}

impl<'a> Listing<'a> {
    pub(super) fn read(image: &'a Reader, dir: &ReadInode) -> io::Result<Self> {
        Self::of(Image::Borrowed(image), dir)
    }

    fn of(image: Image<'a>, dir: &ReadInode) -> io::Result<Self> {
        Ok(Self {
            number: dir.number,
            entries: image.list(dir)?,
            image,
        })
    }
}

impl<'a> Dir<'a> {
    /// Returns the names in it, in order.
    pub(super) fn names(self) -> io::Result<Vec<OsString>> {
        match self {
            Self::Open(dir) => {
                let mut names = read_names(dir)?;
                names.sort_unstable();
                Ok(names)
            }
            Self::Listed(dir) => {
                let names = dir.entries.iter().map(|entry| entry.name.clone());
                Ok(names.collect())
            }
            Self::Merged(dir) => dir.names(),
        }
    }

    /// Looks an entry up; `None` if there is none. Boxed, for who walks deep holds many.
    pub(super) fn find(self, name: &'a OsStr) -> io::Result<Option<Box<Node<'a>>>> {
        match self {
            Self::Open(dir) => Ok(Node::find(dir, name)?.map(Box::new)),
            Self::Listed(dir) => {
                let entries = &dir.entries;
                let found = entries.binary_search_by(|entry| entry.name.as_os_str().cmp(name));
                let inode = found.ok().map(|at| dir.image.inode(entries[at].number));
                let node = |inode| Box::new(Node::of_inode(dir.image.clone(), inode));
                Ok(inode.transpose()?.map(node))
            }
            Self::Merged(dir) => {
                let Some(parent) = dir.layer_of(name)? else {
                    return Ok(None);
                };
                let mut node = match parent {
                    LayerDir::Open(parent) => Node::look_up(Parent::Shared(parent), name)?,
                    LayerDir::Listed(image, entries) => Node::listed(image, &entries, name)?,
                };
                if let Some(node) = &mut node
                    && node.is_dir()
                {
                    node.merged = Some(dir.enter(name));
                }
                Ok(node.map(Box::new))
            }
        }
    }
}

/// What is known of an entry without opening it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata {
    /// Device and number of the inode.
    id: (u64, u64),
    /// Type and permissions.
    mode: u32,
    owner: (u32, u32),
    has_more_names: bool,
    /// What a device stands for.
    device: u64,
    size: u64,
    mtime: Timespec,
}

impl From<&Stat> for Metadata {
    fn from(stat: &Stat) -> Self {
        Self {
            id: (stat.st_dev, stat.st_ino),
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            has_more_names: stat.st_nlink > 1,
            device: stat.st_rdev,
            size: stat.st_size as u64,
            mtime: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec as i64,
            },
        }
    }
}

impl From<&ReadInode> for Metadata {
    fn from(inode: &ReadInode) -> Self {
        let file_type = inode.file_type();
        let is_device = matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice);
        let (major, minor) = inode.device();
        Self {
            id: (IMAGE_DEVICE, inode.number),
            mode: inode.mode,
            owner: (inode.uid, inode.gid),
            has_more_names: inode.link_count > 1,
            device: if is_device {
                fs::makedev(major, minor)
            } else {
                0
            },
            size: inode.size,
            mtime: inode.mtime(),
        }
    }
}

/// An entry of a directory.
pub(crate) struct Node<'a> {
    metadata: Metadata,
    file_type: FileType,
    source: Source<'a>,
    attributes: OnceCell<Attributes>,
    /// What is in a directory, where that is more than one layer of it tells.
    merged: Option<Merged<'a>>,
}

/// Where an entry is read.
enum Source<'a> {
    Name {
        parent: Parent<'a>,
        name: &'a OsStr,
        handle: OnceCell<OwnedFd>,
    },
    Image {
        image: Image<'a>,
        inode: ReadInode,
        listing: OnceCell<Listing<'a>>,
    },
}

/// The image that an entry lies in.
#[derive(Clone)]
enum Image<'a> {
    Borrowed(&'a Reader),
    Shared(Arc<Reader>),
}

impl Deref for Image<'_> {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        match self {
            Self::Borrowed(image) => image,
            Self::Shared(image) => image,
        }
    }
}

/// The directory that an entry is opened in.
enum Parent<'a> {
    Borrowed(BorrowedFd<'a>),
    Shared(Arc<OwnedFd>),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            Self::Shared(fd) => fd.as_fd(),
        }
    }
}

impl<'a> Node<'a> {
    /// Looks the entry of an open directory up; `None` if there is none.
    pub(super) fn find(parent: BorrowedFd<'a>, name: &'a OsStr) -> io::Result<Option<Self>> {
        Self::look_up(Parent::Borrowed(parent), name)
    }

    fn look_up(parent: Parent<'a>, name: &'a OsStr) -> io::Result<Option<Self>> {
        match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let handle = OnceCell::new();
                let source = Source::Name {
                    parent,
                    name,
                    handle,
                };
                Ok(Some(Self::new((&stat).into(), source)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns what an inode of an image is.
    pub(crate) fn in_image(image: &'a Reader, inode: ReadInode) -> Self {
        Self::of_inode(Image::Borrowed(image), inode)
    }

    /// Looks up what has a name among the entries of a directory; `None` if nothing has.
    fn listed(image: Arc<Reader>, entries: &[ReadEntry], name: &OsStr) -> io::Result<Option<Self>> {
        let found = entries.binary_search_by(|entry| entry.name.as_os_str().cmp(name));
        let inode = found.ok().map(|at| image.inode(entries[at].number));
        let inode = inode.transpose()?;
        Ok(inode.map(|inode| Self::of_inode(Image::Shared(image), inode)))
    }

    fn of_inode(image: Image<'a>, inode: ReadInode) -> Self {
        let metadata = (&inode).into();
        let listing = OnceCell::new();
        Self::new(
            metadata,
            Source::Image {
                image,
                inode,
                listing,
            },
        )
    }

    fn new(metadata: Metadata, source: Source<'a>) -> Self {
        Self {
            metadata,
            file_type: FileType::from_raw_mode(metadata.mode),
            source,
            attributes: OnceCell::new(),
            merged: None,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    pub(super) fn is_file(&self) -> bool {
        self.file_type == FileType::RegularFile
    }

    /// Returns what is in the entry, which is a directory.
    pub(super) fn dir(&self) -> io::Result<Dir<'_>> {
        if let Some(merged) = &self.merged {
            return Ok(Dir::Merged(merged));
        }
        match &self.source {
            Source::Name {
                parent,
                name,
                handle,
                ..
            } => opened(parent.as_fd(), name, handle).map(|handle| Dir::Open(handle.as_fd())),
            Source::Image {
                image,
                inode,
                listing,
            } => {
                if let Some(listing) = listing.get() {
                    return Ok(Dir::Listed(listing));
                }
                let read = Listing::of(image.clone(), inode)?;
                Ok(Dir::Listed(listing.get_or_init(|| read)))
            }
        }
    }

    /// Fills `buffer` with what the entry, a file, holds from `offset` on, as far as it goes; returns
    /// how much that is.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.source {
            Source::Name {
                parent,
                name,
                handle,
                ..
            } => Ok(read_full(
                opened(parent.as_fd(), name, handle)?,
                buffer,
                offset,
            )?),
            Source::Image { image, inode, .. } => {
                let rest = inode.size.saturating_sub(offset);
                let count = rest.min(buffer.len() as u64) as usize;
                image.read(inode, offset, &mut buffer[..count])?;
                Ok(count)
            }
        }
    }

    /// Returns where the entry, a file, has data; what lies between is zeros.
    pub(crate) fn segments(&self) -> io::Result<Vec<Segment>> {
        match &self.source {
            Source::Name { .. } => Ok(vec![Segment {
                offset: 0,
                length: self.metadata.size,
            }]),
            Source::Image { image, inode, .. } => image.segments(inode),
        }
    }

    /// Returns the attributes; only files and directories have any that matter.
    pub(crate) fn attributes(&self) -> io::Result<&Attributes> {
        if let Some(attributes) = self.attributes.get() {
            return Ok(attributes);
        }
        let attributes = match &self.source {
            _ if !self.is_dir() && !self.is_file() => Attributes::default(),
            Source::Name {
                parent,
                name,
                handle,
                ..
            } => Attributes::read(opened(parent.as_fd(), name, handle)?)?,
            Source::Image { image, inode, .. } => Attributes::of(image.xattrs(inode)?),
        };
        Ok(self.attributes.get_or_init(|| attributes))
    }

    /// Returns whether the entry only says that there is none: a device 0:0, or an empty file
    /// with overlayfs' mark.
    pub(crate) fn is_whiteout(&self) -> io::Result<bool> {
        match self.file_type {
            FileType::CharacterDevice => Ok(self.metadata.device == 0),
            FileType::RegularFile if self.metadata.size == 0 => {
                Ok(self.attributes()?.overlay.contains_key(&b"whiteout"[..]))
            }
            _ => Ok(false),
        }
    }

    /// Identifies the file among its hard links; `None` if it has but one name.
    pub(crate) fn link_id(&self) -> Option<(u64, u64)> {
        let has_more = !self.is_dir() && self.metadata.has_more_names;
        has_more.then_some(self.metadata.id)
    }

    /// Describes the entry, to be written under `path`; `None` for a socket.
    pub(crate) fn header(&self, path: PathBuf) -> io::Result<Option<Header>> {
        let device = || {
            let number = self.metadata.device;
            (fs::major(number), fs::minor(number))
        };
        let kind = match self.file_type {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink(self.link_target()?),
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharDevice(device().0, device().1),
            FileType::BlockDevice => Kind::BlockDevice(device().0, device().1),
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        Ok(Some(Header {
            path,
            size: if self.is_file() {
                self.metadata.size
            } else {
                0
            },
            kind,
            mode: self.metadata.mode & 0o7777,
            uid: self.metadata.owner.0,
            gid: self.metadata.owner.1,
            mtime: self.metadata.mtime,
            xattrs: self.attributes()?.kept.clone(),
        }))
    }

    /// Returns whether this entry is what `below` is, so that copying it up changed nothing.
    ///
    /// Times of directories don't count. A file whose time has no nanoseconds may have been
    /// unpacked from an archive, which drops them; then its contents decide.
    pub(super) fn is_same_as(&self, below: &Node<'_>) -> io::Result<bool> {
        let (ours, theirs) = (&self.metadata, &below.metadata);
        // Two images may have the same number for different inodes.
        if ours.id.0 != IMAGE_DEVICE && ours.id == theirs.id {
            return Ok(true);
        }
        let basics = |it: &Metadata| (it.mode, it.owner, it.device);
        if basics(ours) != basics(theirs) {
            return Ok(false);
        }
        if !self.is_dir() && (ours.size, ours.mtime) != (theirs.size, theirs.mtime) {
            return Ok(false);
        }
        if self.attributes()?.kept != below.attributes()?.kept {
            return Ok(false);
        }
        if self.is_dir() || ours.mtime.tv_nsec != 0 {
            return Ok(true);
        }
        match self.file_type {
            FileType::Symlink => Ok(self.link_target()? == below.link_target()?),
            FileType::RegularFile => have_same_contents(self, below),
            _ => Ok(true),
        }
    }

    fn link_target(&self) -> io::Result<PathBuf> {
        match &self.source {
            Source::Name { parent, name, .. } => {
                let target = fs::readlinkat(parent, *name, Vec::new())?;
                Ok(OsString::from_vec(target.into_bytes()).into())
            }
            Source::Image { image, inode, .. } => image.link_target(inode),
        }
    }
}

/// Returns an entry, which is a file or directory, open for reading.
fn opened<'n>(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    handle: &'n OnceCell<OwnedFd>,
) -> io::Result<&'n OwnedFd> {
    if let Some(handle) = handle.get() {
        return Ok(handle);
    }
    // Should it have become a pipe, opening must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = fs::openat(parent, name, flags, Mode::empty())?;
    Ok(handle.get_or_init(|| opened))
}

fn have_same_contents(ours: &Node<'_>, theirs: &Node<'_>) -> io::Result<bool> {
    let mut buffers = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    let mut offset = 0;
    loop {
        let count = ours.read(offset, &mut buffers.0)?;
        let other = theirs.read(offset, &mut buffers.1)?;
        if buffers.0[..count] != buffers.1[..other] {
            return Ok(false);
        }
        if count < COMPARE_BYTES {
            return Ok(true);
        }
        offset += count as u64;
    }
}

/// Fills the buffer from `offset` on, as far as the file goes. The file's own position stays.
fn read_full(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
