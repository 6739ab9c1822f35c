use std::collections::HashMap;
use std::io;
use std::ops::Range;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::format::{BLOCK_BYTES, Inode, Layout, Location, ROOT_OFFSET, SLOT_BYTES, entry_type};
use super::inodes::{InodeRef, fits_inline};
use super::tree::{Attributes, DirId, Entry, NodeKind, Tree};
use super::writer::{Content, Writer};

/// What an entry takes besides its name.
const ENTRY_BYTES: usize = 12;

/// Writes what is only known at the end: links, devices and marks, then all directories. Returns
/// the first block's part: the root directory.
pub(super) fn write(tree: &Tree, writer: &mut Writer) -> io::Result<Vec<u8>> {
    let order = tree.all_dirs();
    let places = place_nodes(tree, &order, writer)?;
    writer.flush_inodes()?;
    let mut numbers = Numbers {
        places,
        dirs: HashMap::with_capacity(order.len()),
    };
    let (root, others) = order.split_first().ok_or(Errno::INVAL)?;
    let first_number = writer.stream.next_block() * SLOTS_PER_BLOCK;
    numbers
        .dirs
        .insert(*root, (ROOT_OFFSET / SLOT_BYTES) as u64);

    let mut area_bytes = 0;
    let mut planned = Vec::with_capacity(others.len());
    for dir in others {
        let plan = Plan::new(tree, *dir, writer);
        let offset = plan.place_behind(area_bytes);
        area_bytes = (offset + plan.length()).next_multiple_of(SLOT_BYTES);
        numbers
            .dirs
            .insert(*dir, first_number + (offset / SLOT_BYTES) as u64);
        planned.push((plan, offset));
    }
    let root = Plan::new(tree, *root, writer).at_the_root()?;

    let mut area = Vec::with_capacity(area_bytes.next_multiple_of(BLOCK_BYTES));
    let mut blocks = Blocks {
        first: writer.stream.next_block() + area_bytes.div_ceil(BLOCK_BYTES) as u64,
        bytes: Vec::new(),
    };
    for (plan, offset) in &planned {
        area.resize(*offset, 0);
        plan.write(tree, &numbers, writer, &mut blocks, &mut area);
    }
    let mut first = Vec::new();
    root.write(tree, &numbers, writer, &mut blocks, &mut first);
    writer.stream.append_padded(&area)?;
    writer.stream.append(&blocks.bytes)?;
    Ok(first)
}

const SLOTS_PER_BLOCK: u64 = (BLOCK_BYTES / SLOT_BYTES) as u64;

/// Places symlinks, devices, pipes and whiteouts.
fn place_nodes(tree: &Tree, order: &[DirId], writer: &mut Writer) -> io::Result<Places> {
    let mut places = Places {
        nodes: vec![None; tree.nodes.len()],
        whiteout: None,
    };
    let mut whiteouts = 0;
    for dir in order {
        for entry in tree.dir(*dir).entries.values() {
            match *entry {
                Entry::Node(id) if places.nodes[id.index()].is_none() => {
                    let node = &tree.nodes[id.index()];
                    let content = match &node.kind {
                        NodeKind::Symlink(target) => Content {
                            type_bits: FileType::Symlink.as_raw_mode(),
                            size: target.len() as u64,
                            location: Location::Data(None),
                            tail: target,
                        },
                        NodeKind::Special(file_type, device) => special(*file_type, *device),
                    };
                    let inode = writer.place(&node.attributes, content, node.link_count)?;
                    places.nodes[id.index()] = Some(inode);
                }
                Entry::Whiteout => whiteouts += 1,
                Entry::Node(_) | Entry::File(_) | Entry::Dir(_) => {}
            }
        }
    }
    if whiteouts > 0 {
        // Nobody sees its attributes.
        let attributes = Attributes {
            time: writer.epoch(),
            ..Attributes::default()
        };
        let content = special(FileType::CharacterDevice, 0);
        places.whiteout = Some(writer.place(&attributes, content, whiteouts)?);
    }
    Ok(places)
}

fn special(file_type: FileType, device: u32) -> Content<'static> {
    Content {
        type_bits: file_type.as_raw_mode(),
        size: 0,
        location: Location::Device(device),
        tail: &[],
    }
}

/// Where what is no directory was placed.
struct Places {
    nodes: Vec<Option<InodeRef>>,
    /// All whiteouts are names of one inode.
    whiteout: Option<InodeRef>,
}

/// The numbers of all inodes.
struct Numbers {
    places: Places,
    dirs: HashMap<DirId, u64>,
}

impl Numbers {
    /// Returns number and type of what an entry names.
    fn of(&self, entry: Entry, tree: &Tree, writer: &Writer) -> (u64, FileType) {
        let number = |inode: Option<InodeRef>| {
            writer.number(inode.expect("every entry's inode was placed before directories"))
        };
        match entry {
            Entry::Dir(id) => (self.dirs[&id], FileType::Directory),
            Entry::File(inode) => (writer.number(inode), FileType::RegularFile),
            Entry::Node(id) => (
                number(self.places.nodes[id.index()]),
                tree.nodes[id.index()].kind.file_type(),
            ),
            Entry::Whiteout => (number(self.places.whiteout), FileType::CharacterDevice),
        }
    }
}

/// Whole blocks of directories, which follow the inodes of directories.
struct Blocks {
    first: u64,
    bytes: Vec<u8>,
}

/// A directory that is about to be written: all but what it depends on others for.
struct Plan {
    dir: DirId,
    inode: Inode,
    /// The length of the inode with its attributes.
    head_bytes: usize,
    xattrs: Vec<u8>,
    /// Which entries go to which block.
    chunks: Vec<Range<usize>>,
}

impl Plan {
    fn new(tree: &Tree, id: DirId, writer: &mut Writer) -> Self {
        let dir = tree.dir(id);
        let entries = tree.listing(id);
        let (chunks, size) = split(entries.iter().map(|(name, _)| name.len()));
        // Its name, its own `.`, and the `..` of each directory in it: as many as those it lists.
        let dirs = entries
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Dir(_)));
        let link_count = dirs.count() as u32;
        let xattrs = writer.shared.encode(&dir.attributes.xattrs);
        let content = Content {
            type_bits: FileType::Directory.as_raw_mode(),
            size: size as u64,
            location: Location::Data(None),
            tail: &[],
        };
        let mut inode = writer.inode(&dir.attributes, &content, link_count, xattrs.len());
        let head_bytes = inode.length(writer.epoch()) + xattrs.len();
        let tail = size % BLOCK_BYTES;
        if tail > 0 && fits_inline(head_bytes, tail) {
            inode.layout = Layout::Inline;
        }
        Self {
            dir: id,
            inode,
            head_bytes,
            xattrs,
            chunks,
        }
    }

    /// Makes it fit behind the superblock.
    fn at_the_root(mut self) -> Result<Self, Errno> {
        let room = BLOCK_BYTES - ROOT_OFFSET;
        if self.length() > room {
            self.inode.layout = Layout::Plain;
        }
        if self.length() > room {
            return Err(Errno::NOSPC);
        }
        Ok(self)
    }

    /// Returns what it takes among the inodes.
    fn length(&self) -> usize {
        self.head_bytes + self.tail_bytes()
    }

    fn tail_bytes(&self) -> usize {
        match self.inode.layout {
            Layout::Plain => 0,
            Layout::Inline => self.inode.size as usize % BLOCK_BYTES,
        }
    }

    /// Returns where it can begin, behind what ends at `offset`.
    fn place_behind(&self, offset: usize) -> usize {
        let begin = offset % BLOCK_BYTES;
        if begin > 0 && begin + self.length() > BLOCK_BYTES {
            offset.next_multiple_of(BLOCK_BYTES)
        } else {
            offset
        }
    }

    /// Appends the directory to `area`, and its whole blocks to `blocks`.
    fn write(
        &self,
        tree: &Tree,
        numbers: &Numbers,
        writer: &mut Writer,
        blocks: &mut Blocks,
        area: &mut Vec<u8>,
    ) {
        let content = self.content(tree, numbers, writer);
        writer.digest(&content);
        let (whole, tail) = content.split_at(content.len() - self.tail_bytes());
        let mut inode = self.inode;
        if !whole.is_empty() {
            let block = blocks.first + (blocks.bytes.len() / BLOCK_BYTES) as u64;
            inode.location = Location::Data(Some(block as u32));
            blocks.bytes.extend_from_slice(whole);
            let end = blocks.bytes.len().next_multiple_of(BLOCK_BYTES);
            blocks.bytes.resize(end, 0);
        }
        area.extend(writer.head(&inode, &self.xattrs));
        area.extend_from_slice(tail);
    }

    /// Returns the entries in blocks, of which the last one ends with the last name.
    fn content(&self, tree: &Tree, numbers: &Numbers, writer: &Writer) -> Vec<u8> {
        let entries = tree.listing(self.dir);
        let mut content = Vec::with_capacity(self.inode.size as usize);
        for chunk in &self.chunks {
            content.resize(content.len().next_multiple_of(BLOCK_BYTES), 0);
            let entries = &entries[chunk.clone()];
            let mut name_offset = entries.len() * ENTRY_BYTES;
            for (name, entry) in entries {
                let (number, file_type) = numbers.of(*entry, tree, writer);
                content.extend(number.to_le_bytes());
                content.extend((name_offset as u16).to_le_bytes());
                content.extend([entry_type(file_type), 0]);
                name_offset += name.len();
            }
            for (name, _) in entries {
                content.extend_from_slice(name);
            }
        }
        content
    }
}

/// Returns which names, given by their lengths, go to which block, and how many bytes that makes.
fn split(names: impl ExactSizeIterator<Item = usize>) -> (Vec<Range<usize>>, usize) {
    let count = names.len();
    let mut chunks = Vec::new();
    let (mut begin, mut used) = (0, 0);
    for (index, name) in names.enumerate() {
        let length = ENTRY_BYTES + name;
        if used + length > BLOCK_BYTES {
            chunks.push(begin..index);
            (begin, used) = (index, 0);
        }
        used += length;
    }
    let size = chunks.len() * BLOCK_BYTES + used;
    chunks.push(begin..count);
    (chunks, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_whole_blocks() {
        let split = |count, length| split(std::iter::repeat_n(length, count));
        // 273 times 15 bytes are one less than a block.
        let three = vec![0..273, 273..546, 546..600];
        assert_eq!(split(600, 3), (three, 2 * 4096 + 54 * 15));
        assert_eq!((split(273, 3).0.len(), split(273, 3).1), (1, 4095));
        // With names of 4 bytes a block is full to its last byte.
        assert_eq!(split(257, 4), (vec![0..256, 256..257], 4096 + 16));
        assert_eq!((split(256, 4).0.len(), split(256, 4).1), (1, 4096));
    }
}
