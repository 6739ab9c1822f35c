use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::format::{MAX_NAME_BYTES, Time};
use super::inodes::InodeRef;
use super::lower::Lower;
use crate::tar::Xattrs;

/// The mark of a directory that hides what is beneath it.
pub(super) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// The most names that one file can have, as in ext4.
const MAX_LINKS: u32 = 65_000;

/// How many directories, and how many other entries with attributes, are held at most; what an
/// archive brings is in memory until the image is finished.
const MAX_ENTRIES: usize = 16 << 20;

/// The tree that becomes an image's directories. Upon a tree beneath, it is a view of both, of
/// which it holds what differs.
#[derive(Debug)]
pub(super) struct Tree {
    dirs: Vec<Dir>,
    pub(super) nodes: Vec<Node>,
    /// How many names a file has, unless it is one.
    links: HashMap<InodeRef, u32>,
    entry_count: usize,
    pub(super) lower: Option<Lower>,
    /// What is given to an entry that is made.
    defaults: Attributes,
}

/// A directory, by its place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirId(u32);

/// What is neither directory nor file, by its place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) time: Time,
    pub(super) xattrs: Xattrs,
}

#[derive(Debug)]
pub(super) struct Dir {
    pub(super) attributes: Attributes,
    pub(super) entries: BTreeMap<Box<[u8]>, Entry>,
    pub(super) parent: DirId,
    /// Its path in the tree beneath, of which it shows the entries too.
    lower: Option<PathBuf>,
    /// Whether it was but passed through: it is no part of the image, and has no attributes yet.
    is_passed: bool,
}

/// A symlink, pipe, socket or device.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) attributes: Attributes,
    pub(super) link_count: u32,
}

#[derive(Debug)]
pub(super) enum NodeKind {
    Symlink(Box<[u8]>),
    /// The type, and what [`encode_device`](super::format::encode_device) makes of the device.
    Special(FileType, u32),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Dir(DirId),
    File(InodeRef),
    Node(NodeId),
    /// Hides what is beneath. Upon a tree, nothing is seen there; else a device.
    Whiteout,
}

/// What is seen under a name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    Nothing,
    Entry(Entry),
    /// What is beneath, and no directory that was passed through.
    Beneath(FileType),
}

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeKind {
    pub(super) fn file_type(&self) -> FileType {
        match self {
            Self::Symlink(_) => FileType::Symlink,
            Self::Special(file_type, _) => *file_type,
        }
    }
}

impl Tree {
    pub(super) const ROOT: DirId = DirId(0);

    /// Returns a tree of a root directory. What is made in it is given `defaults`.
    pub(super) fn new(root: Attributes, defaults: Attributes, lower: Option<Lower>) -> Self {
        let root = Dir {
            attributes: root,
            entries: BTreeMap::new(),
            parent: Self::ROOT,
            lower: lower.as_ref().map(|_| PathBuf::new()),
            is_passed: false,
        };
        Self {
            dirs: vec![root],
            nodes: Vec::new(),
            links: HashMap::new(),
            entry_count: 0,
            lower,
            defaults,
        }
    }

    pub(super) fn dir(&self, id: DirId) -> &Dir {
        &self.dirs[id.0 as usize]
    }

    fn dir_mut(&mut self, id: DirId) -> &mut Dir {
        &mut self.dirs[id.0 as usize]
    }

    /// Returns all directories of the image, each before those in it, the root first.
    pub(super) fn all_dirs(&self) -> Vec<DirId> {
        let mut found = Vec::new();
        let mut pending = vec![Self::ROOT];
        while let Some(id) = pending.pop() {
            found.push(id);
            let entries = self.dir(id).entries.values().rev();
            pending.extend(entries.filter_map(|entry| match entry {
                Entry::Dir(sub) if !self.dir(*sub).is_passed => Some(*sub),
                _ => None,
            }));
        }
        found
    }

    /// Returns what a directory of the image lists, itself and its parent too, sorted.
    pub(super) fn listing(&self, id: DirId) -> Vec<(&[u8], Entry)> {
        let dir = self.dir(id);
        let dots = [(&b"."[..], id), (b"..", dir.parent)];
        let mut listing: Vec<(&[u8], Entry)> = Vec::with_capacity(dir.entries.len() + dots.len());
        for (name, entry) in &dir.entries {
            match entry {
                Entry::Dir(sub) if self.dir(*sub).is_passed => {}
                entry => listing.push((name, *entry)),
            }
        }
        for (dot, id) in dots {
            let place = listing.partition_point(|(name, _)| *name < dot);
            listing.insert(place, (dot, Entry::Dir(id)));
        }
        listing
    }

    /// Returns the files that have another number of names than one, sorted.
    pub(super) fn link_counts(&self) -> Vec<(InodeRef, u32)> {
        let counts = self.links.iter().map(|(inode, count)| (*inode, *count));
        let mut counts: Vec<_> = counts.filter(|(_, count)| *count != 1).collect();
        counts.sort_unstable();
        counts
    }

    /// Returns what is seen under `name`.
    pub(super) fn find(&mut self, dir: DirId, name: &OsStr) -> Result<Found, Errno> {
        match self.dir(dir).entries.get(name.as_bytes()) {
            Some(Entry::Whiteout) if self.lower.is_some() => Ok(Found::Nothing),
            Some(entry) => Ok(Found::Entry(*entry)),
            None => match self.beneath(dir, name)? {
                Some(file_type) => Ok(Found::Beneath(file_type)),
                None => Ok(Found::Nothing),
            },
        }
    }

    /// Returns the type of what is seen.
    pub(super) fn type_of(&self, found: Found) -> Option<FileType> {
        match found {
            Found::Nothing => None,
            Found::Beneath(file_type) => Some(file_type),
            Found::Entry(Entry::Dir(_)) => Some(FileType::Directory),
            Found::Entry(Entry::File(_)) => Some(FileType::RegularFile),
            Found::Entry(Entry::Node(id)) => Some(self.nodes[id.index()].kind.file_type()),
            Found::Entry(Entry::Whiteout) => Some(FileType::CharacterDevice),
        }
    }

    /// Returns the target of a symlink, `None` for all else.
    pub(super) fn link_target(
        &mut self,
        dir: DirId,
        name: &OsStr,
        found: Found,
    ) -> Result<Option<PathBuf>, Errno> {
        match found {
            Found::Entry(Entry::Node(id)) => match &self.nodes[id.index()].kind {
                NodeKind::Symlink(target) => Ok(Some(OsStr::from_bytes(target).into())),
                NodeKind::Special(..) => Ok(None),
            },
            Found::Beneath(FileType::Symlink) => match (&self.dir(dir).lower, &self.lower) {
                (Some(path), Some(lower)) => lower.read_link(path, name).map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Returns the directory under `name`, which is no symlink.
    pub(super) fn enter(&mut self, dir: DirId, name: &OsStr) -> Result<DirId, Errno> {
        match self.find(dir, name)? {
            Found::Entry(Entry::Dir(id)) => Ok(id),
            Found::Beneath(FileType::Directory) => {
                let lower = self.dir(dir).lower.as_ref().map(|dir| dir.join(name));
                let id = self.add_dir(Dir {
                    attributes: Attributes::default(),
                    entries: BTreeMap::new(),
                    parent: dir,
                    lower,
                    is_passed: true,
                })?;
                let entries = &mut self.dir_mut(dir).entries;
                entries.insert(name.as_bytes().into(), Entry::Dir(id));
                Ok(id)
            }
            found => match self.type_of(found) {
                None => Err(Errno::NOENT),
                Some(FileType::Symlink) => Err(Errno::LOOP),
                Some(_) => Err(Errno::NOTDIR),
            },
        }
    }

    /// Returns the names that are seen in a directory, sorted.
    pub(super) fn names(&mut self, dir: DirId) -> Result<Vec<OsString>, Errno> {
        let mut names = match (&self.lower, &self.dir(dir).lower) {
            (Some(lower), Some(path)) => lower.names(path)?,
            _ => Vec::new(),
        };
        let own = &self.dir(dir).entries;
        names.retain(|name| !own.contains_key(name.as_bytes()));
        let hides = self.lower.is_some();
        for (name, entry) in own {
            if !(hides && matches!(entry, Entry::Whiteout)) {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes a directory.
    pub(super) fn make_dir(&mut self, dir: DirId, name: &OsStr) -> Result<(), Errno> {
        self.check_free(dir, name)?;
        let mut attributes = self.defaults_in(dir)?;
        attributes.mode = 0o700;
        // A directory beneath that was removed must not shine through.
        if self.beneath(dir, name)? == Some(FileType::Directory) {
            attributes.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
        }
        let id = self.add_dir(Dir {
            attributes,
            entries: BTreeMap::new(),
            parent: dir,
            lower: None,
            is_passed: false,
        })?;
        self.insert(dir, name, Entry::Dir(id))
    }

    /// Makes a symlink or a special file.
    pub(super) fn make_node(
        &mut self,
        dir: DirId,
        name: &OsStr,
        kind: NodeKind,
        mode: u32,
    ) -> Result<(), Errno> {
        self.check_free(dir, name)?;
        if self.nodes.len() == MAX_ENTRIES {
            return Err(Errno::OVERFLOW);
        }
        let id = NodeId(self.nodes.len() as u32);
        let mut attributes = self.defaults_in(dir)?;
        attributes.mode = mode;
        self.nodes.push(Node {
            kind,
            attributes,
            link_count: 1,
        });
        self.insert(dir, name, Entry::Node(id))
    }

    /// Makes a whiteout by hand, which is for whoever knows what lies beneath.
    pub(super) fn make_whiteout(&mut self, dir: DirId, name: &OsStr) -> Result<(), Errno> {
        if self.lower.is_some() {
            return Err(Errno::PERM);
        }
        self.check_free(dir, name)?;
        self.insert(dir, name, Entry::Whiteout)
    }

    /// Returns what a file is given that is about to be made.
    ///
    /// # Errors
    /// `EXIST` if the name is taken.
    pub(super) fn new_file(&mut self, dir: DirId, name: &OsStr) -> Result<Attributes, Errno> {
        self.check_free(dir, name)?;
        self.defaults_in(dir)
    }

    /// Returns what is given to what is made in a directory: where its setgid bit is set, its
    /// group.
    fn defaults_in(&mut self, dir: DirId) -> Result<Attributes, Errno> {
        /// The setgid bit.
        const SETGID: u32 = 0o2000;
        self.copy_up(dir)?;
        let mut attributes = self.defaults.clone();
        let parent = &self.dir(dir).attributes;
        if parent.mode & SETGID != 0 {
            attributes.owner.1 = parent.owner.1;
        }
        Ok(attributes)
    }

    /// Makes an entry under a name where nothing is seen.
    pub(super) fn insert(&mut self, dir: DirId, name: &OsStr, entry: Entry) -> Result<(), Errno> {
        if self.entry_count == MAX_ENTRIES {
            return Err(Errno::OVERFLOW);
        }
        self.entry_count += 1;
        self.touch(dir)?;
        let entries = &mut self.dir_mut(dir).entries;
        entries.insert(name.as_bytes().into(), entry);
        Ok(())
    }

    /// Makes a further name of what is no directory.
    pub(super) fn link(
        &mut self,
        (from_dir, from): (DirId, &OsStr),
        (dir, name): (DirId, &OsStr),
    ) -> Result<(), Errno> {
        self.check_free(dir, name)?;
        let entry = match self.find(from_dir, from)? {
            Found::Nothing => return Err(Errno::NOENT),
            Found::Entry(Entry::Dir(_)) | Found::Beneath(FileType::Directory) => {
                return Err(Errno::PERM);
            }
            Found::Beneath(_) => return Err(Errno::XDEV),
            Found::Entry(entry) => entry,
        };
        let count = match entry {
            Entry::File(inode) => Some(self.links.entry(inode).or_insert(1)),
            Entry::Node(id) => Some(&mut self.nodes[id.index()].link_count),
            Entry::Whiteout | Entry::Dir(_) => None,
        };
        if let Some(count) = count {
            if *count == MAX_LINKS {
                return Err(Errno::MLINK);
            }
            *count += 1;
        }
        self.insert(dir, name, entry)
    }

    /// Gives what is under `from` another name, in place of what has that.
    pub(super) fn rename(&mut self, dir: DirId, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        let found = self.find(dir, to)?;
        if self.type_of(found) == Some(FileType::Directory) {
            return Err(Errno::ISDIR);
        }
        let moved = self.dir_mut(dir).entries.remove(from.as_bytes());
        let moved = moved.ok_or(Errno::NOENT)?;
        self.remove(dir, to)?;
        self.insert(dir, to, moved)
    }

    /// Removes what is under `name`, with all beneath it; returns whether there was anything.
    pub(super) fn remove(&mut self, dir: DirId, name: &OsStr) -> Result<bool, Errno> {
        let entry = match self.find(dir, name)? {
            Found::Nothing => return Ok(false),
            Found::Beneath(_) => None,
            Found::Entry(entry) => Some(entry),
        };
        self.touch(dir)?;
        if let Some(entry) = entry {
            self.unlink(entry);
        }
        let is_beneath = self.beneath(dir, name)?.is_some();
        let entries = &mut self.dir_mut(dir).entries;
        if is_beneath {
            entries.insert(name.as_bytes().into(), Entry::Whiteout);
        } else {
            entries.remove(name.as_bytes());
        }
        Ok(true)
    }

    /// Takes away a whiteout; what is none stays.
    pub(super) fn drop_whiteout(&mut self, dir: DirId, name: &OsStr) {
        let entries = &mut self.dir_mut(dir).entries;
        if matches!(entries.get(name.as_bytes()), Some(Entry::Whiteout)) {
            entries.remove(name.as_bytes());
        }
    }

    /// Returns the attributes of a directory, to be changed.
    pub(super) fn dir_attributes(&mut self, dir: DirId) -> Result<&mut Attributes, Errno> {
        self.copy_up(dir)?;
        Ok(&mut self.dir_mut(dir).attributes)
    }

    /// Returns the attributes of what is under `name`, to be changed. Those of files can only be
    /// set before they are closed.
    pub(super) fn attributes_of(
        &mut self,
        dir: DirId,
        name: &OsStr,
    ) -> Result<&mut Attributes, Errno> {
        match self.find(dir, name)? {
            Found::Nothing => Err(Errno::NOENT),
            Found::Entry(Entry::Node(id)) => Ok(&mut self.nodes[id.index()].attributes),
            Found::Entry(Entry::Dir(_)) | Found::Beneath(FileType::Directory) => {
                let id = self.enter(dir, name)?;
                self.dir_attributes(id)
            }
            Found::Entry(Entry::File(_) | Entry::Whiteout) | Found::Beneath(_) => {
                Err(Errno::OPNOTSUPP)
            }
        }
    }

    /// Takes one name off everything at `entry` and beneath.
    fn unlink(&mut self, entry: Entry) {
        let mut pending = vec![entry];
        while let Some(entry) = pending.pop() {
            self.entry_count = self.entry_count.saturating_sub(1);
            match entry {
                Entry::File(inode) => *self.links.entry(inode).or_insert(1) -= 1,
                Entry::Node(id) => self.nodes[id.index()].link_count -= 1,
                Entry::Dir(id) => {
                    let entries = std::mem::take(&mut self.dir_mut(id).entries);
                    pending.extend(entries.into_values());
                }
                Entry::Whiteout => {}
            }
        }
    }

    /// Makes a directory that was passed through part of the image, with those that lead to it.
    fn copy_up(&mut self, dir: DirId) -> Result<(), Errno> {
        let mut at = dir;
        while self.dir(at).is_passed {
            if let (Some(lower), Some(path)) = (&self.lower, &self.dir(at).lower) {
                let attributes = lower.attributes(path)?;
                self.dir_mut(at).attributes = attributes;
            }
            self.dir_mut(at).is_passed = false;
            at = self.dir(at).parent;
        }
        Ok(())
    }

    /// Notes that the entries of a directory change: upon a tree, as file systems do it.
    fn touch(&mut self, dir: DirId) -> Result<(), Errno> {
        if self.lower.is_some() {
            self.copy_up(dir)?;
            self.dir_mut(dir).attributes.time = self.defaults.time;
        }
        Ok(())
    }

    fn check_free(&mut self, dir: DirId, name: &OsStr) -> Result<(), Errno> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        match self.find(dir, name)? {
            Found::Nothing => Ok(()),
            Found::Entry(_) | Found::Beneath(_) => Err(Errno::EXIST),
        }
    }

    /// Returns what the tree beneath has under a name of a directory that shows it.
    fn beneath(&self, dir: DirId, name: &OsStr) -> Result<Option<FileType>, Errno> {
        match (&self.lower, &self.dir(dir).lower) {
            (Some(lower), Some(path)) => lower.file_type(path, name),
            _ => Ok(None),
        }
    }

    fn add_dir(&mut self, dir: Dir) -> Result<DirId, Errno> {
        if self.dirs.len() == MAX_ENTRIES {
            return Err(Errno::OVERFLOW);
        }
        let id = DirId(self.dirs.len() as u32);
        self.dirs.push(dir);
        Ok(id)
    }

    /// Returns the file at `path` of the image itself.
    pub(super) fn file_at(&self, path: &Path) -> Option<InodeRef> {
        let (dir, name) = self.own(path)?;
        match self.dir(dir).entries.get(name.as_bytes()) {
            Some(Entry::File(inode)) => Some(*inode),
            _ => None,
        }
    }

    /// Returns where the entry at `path` of the image itself is, whatever it is.
    pub(super) fn own<'p>(&self, path: &'p Path) -> Option<(DirId, &'p OsStr)> {
        let mut dir = Self::ROOT;
        let (parent, name) = (path.parent()?, path.file_name()?);
        for name in parent {
            match self.dir(dir).entries.get(name.as_bytes()) {
                Some(Entry::Dir(id)) => dir = *id,
                _ => return None,
            }
        }
        Some((dir, name))
    }
}
