use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::prelude::*;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, Kind, Stamp, Xattrs, read_xattrs};
use super::record::{FileDigest, RecordHasher};
use super::scan::{DirFilter, Filter, Listed, join, list_dir};
use super::stat_cache::{CacheEntry, StatCache};
use crate::beneath::Root;
use crate::{Error, ErrorKind, Result};

/// Fewer directories or files than this are not worth a second thread.
const PARALLEL_FROM: usize = 16;

/// How long the clock of a file system may show one time: twice a tick of the slowest kernel
/// clock (100 Hz).
const CLOCK_GRAIN_NANOS: i64 = 20_000_000;

/// The same for a file system that keeps whole seconds, or every second one (FAT).
const COARSE_GRAIN_NANOS: i64 = 2_000_000_000;

/// Bytes read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// A context's files up to this size are kept in memory from when they are digested until they are
/// copied: to open one again costs more than to hold it.
const MAX_KEPT_BYTES: u64 = 16 << 10;

/// How much is kept in all.
const MAX_KEPT_IN_ALL_BYTES: u64 = 64 << 20;

/// The listing of a directory tree: of a build context ([`scan`](super::scan)) or of a snapshot
/// ([`Tree::view`]).
pub struct Tree {
    pub(super) root: Root,
    pub(super) top: Node,
    /// Whether this is a build context: its own header does not count.
    pub(super) is_context: bool,
    pub(super) cache: StatCache,
    /// When the scan began, nanoseconds since 1970; for a view, whose files don't change, never.
    pub(super) started_at_nanos: i64,
    /// Whether a digest was computed that the cache does not know and may.
    pub(super) learned: AtomicBool,
    /// Bytes of files that are kept.
    pub(super) kept_bytes: AtomicU64,
}

/// What a tree holds of one entry.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Box<[u8]>,
    pub(super) attributes: Attributes,
    /// Of a symlink; else empty.
    pub(super) link_target: Box<[u8]>,
    /// Of a directory: its entries in the order of their names, once listed.
    pub(super) children: OnceLock<Vec<Node>>,
    pub(super) digest: OnceLock<FileDigest>,
    pub(super) kept: Mutex<Option<Box<FileContent>>>,
    /// Whether the entry belongs to the tree even if nothing beneath it does.
    pub(super) is_selected: bool,
}

/// What a file held when it was digested.
#[derive(Debug)]
pub(crate) struct FileContent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) xattrs: Xattrs,
}

/// One entry of a [`Tree`].
#[derive(Clone)]
pub struct Entry<'a> {
    tree: &'a Tree,
    node: &'a Node,
    /// What holds its path, and those of others that were listed with it.
    paths: Arc<[u8]>,
    path: Range<usize>,
}

impl Tree {
    /// Returns the tree beneath `root` as it is, owners included. Directories are listed when they
    /// are asked for.
    pub fn view(root: Root) -> Result<Self> {
        let stat = fs::fstat(&root).map_err(|errno| Error::io("cannot look up `/`", errno))?;
        Ok(Self {
            root,
            top: Node::new(Box::default(), Attributes::new(&stat)),
            is_context: false,
            cache: StatCache::default(),
            started_at_nanos: i64::MAX,
            learned: AtomicBool::new(false),
            kept_bytes: AtomicU64::new(0),
        })
    }

    /// Returns the topmost directory.
    pub fn top(&self) -> Entry<'_> {
        Entry {
            tree: self,
            node: &self.top,
            paths: Arc::default(),
            path: 0..0,
        }
    }

    /// Returns all entries but the topmost directory, each directory before its entries.
    pub fn entries(&self) -> Result<Vec<Entry<'_>>> {
        let mut entries = self.top().with_descendants()?;
        entries.remove(0);
        Ok(entries)
    }

    /// Returns the stat cache with the digests that were computed since the scan, or `None` if
    /// the one that the scan was given needs no change.
    pub fn updated_cache(&self) -> Option<StatCache> {
        if !self.learned.load(Ordering::Relaxed) {
            return None;
        }
        let mut known = Vec::new();
        for node in self.listed() {
            let stamp = node.attributes.stamp;
            if let Some(&digest) = node.digest.get()
                && self.is_trusted(&stamp)
            {
                known.push(CacheEntry {
                    stamp,
                    digest,
                    age: 0,
                });
            }
        }
        Some(self.cache.renewed(known))
    }

    /// Returns how many bytes the files have that are listed: of a context, all.
    pub fn file_bytes(&self) -> u64 {
        let files = self.listed().map(|node| &node.attributes);
        let files = files.filter(|attributes| attributes.kind == Kind::File);
        files.map(|attributes| attributes.size).sum()
    }

    /// Returns what is listed so far, in no particular order.
    fn listed(&self) -> impl Iterator<Item = &Node> {
        let mut pending = vec![&self.top];
        std::iter::from_fn(move || {
            let node = pending.pop()?;
            pending.extend(node.children.get().into_iter().flatten());
            Some(node)
        })
    }

    /// Returns the handle that paths of entries are relative to.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Returns whether a file with this stamp is unchanged since the scan. If not, it may be: it
    /// changed so shortly before the scan that another change could bear the same times.
    pub(crate) fn is_trusted(&self, stamp: &Stamp) -> bool {
        let has_whole_seconds = stamp.changed_at_nanos % 1_000_000_000 == 0;
        let grain = if has_whole_seconds {
            COARSE_GRAIN_NANOS
        } else {
            CLOCK_GRAIN_NANOS
        };
        stamp.changed_at_nanos < self.started_at_nanos.saturating_sub(grain)
    }

    fn compute_digest(&self, entry: &Entry<'_>) -> Result<FileDigest> {
        let attributes = entry.attributes();
        if self.is_trusted(&attributes.stamp) {
            self.learned.store(true, Ordering::Relaxed);
        }
        let path = entry.path();
        let xattrs = |flags| -> Result<Xattrs> {
            let fd = self
                .root
                .open_file(path, flags | OFlags::NOFOLLOW, Mode::empty())?;
            read_xattrs(fd).map_err(|errno| cannot_read(path, errno))
        };
        let xattrs = match attributes.kind {
            Kind::File => return self.hash_file(entry),
            Kind::Dir => xattrs(OFlags::RDONLY | OFlags::DIRECTORY)?,
            _ => xattrs(OFlags::PATH)?,
        };
        Ok(RecordHasher::new(attributes, entry.link_target(), &xattrs).finish())
    }

    fn hash_file(&self, entry: &Entry<'_>) -> Result<FileDigest> {
        let path = entry.path();
        let attributes = entry.attributes();
        // A pipe may stand here by now; opening it must not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = self.root.open_file(path, flags, Mode::empty())?;
        let failed = |errno| cannot_read(path, errno);
        let is_unchanged = || {
            let stat = fs::fstat(&fd).map_err(failed)?;
            Ok(Stamp::new(&stat) == attributes.stamp)
        };
        if !is_unchanged()? {
            return Err(changed(path));
        }
        let xattrs = read_xattrs(&fd).map_err(failed)?;
        let mut hasher = RecordHasher::new(attributes, &[], &xattrs);
        let mut bytes = vec![0; BUFFER_BYTES.min(attributes.size as usize)];
        let mut total = 0;
        while total < attributes.size {
            // A file that fits into the buffer is there as a whole in the end.
            let at = (total % bytes.len() as u64) as usize;
            match rustix::io::read(&fd, &mut bytes[at..]) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&bytes[at..at + count]);
                    total += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        if total != attributes.size || !is_unchanged()? {
            return Err(changed(path));
        }
        if self.has_room_for(attributes.size) {
            entry.keep(FileContent { bytes, xattrs });
        }
        Ok(hasher.finish())
    }

    /// Takes the room to keep a file of `size` bytes; returns whether there is some.
    fn has_room_for(&self, size: u64) -> bool {
        let is_kept = self.is_context && size <= MAX_KEPT_BYTES;
        let take = |kept: u64| (kept + size <= MAX_KEPT_IN_ALL_BYTES).then_some(kept + size);
        let order = Ordering::Relaxed;
        is_kept && self.kept_bytes.fetch_update(order, order, take).is_ok()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("is_context", &self.is_context)
            .finish_non_exhaustive()
    }
}

impl Node {
    pub(super) fn new(name: Box<[u8]>, attributes: Attributes) -> Self {
        Self {
            name,
            attributes,
            link_target: Box::default(),
            children: OnceLock::new(),
            digest: OnceLock::new(),
            kept: Mutex::new(None),
            is_selected: true,
        }
    }
}

impl<'a> Entry<'a> {
    /// Returns the path relative to the tree's topmost directory, whose own is empty. No name in
    /// it is that of a symlink but the last one.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path_bytes()))
    }

    /// Returns the last name of the path.
    pub fn name(&self) -> &'a [u8] {
        &self.node.name
    }

    /// Returns what `stat` tells.
    pub fn attributes(&self) -> &'a Attributes {
        &self.node.attributes
    }

    /// Returns the target of a symlink as it is stored; empty for all else.
    pub fn link_target(&self) -> &'a [u8] {
        &self.node.link_target
    }

    /// Returns the entries of a directory in the order of their names; none of all else.
    pub fn children(&self) -> Result<Vec<Self>> {
        let children = self.node_children()?.iter();
        Ok(children.map(|node| self.child_entry(node)).collect())
    }

    /// Returns the entry `name` of a directory.
    pub fn child(&self, name: &[u8]) -> Result<Option<Self>> {
        let children = self.node_children()?;
        let found = children.binary_search_by(|node| (*node.name).cmp(name));
        Ok(found.ok().map(|index| self.child_entry(&children[index])))
    }

    /// Returns this entry and all beneath it, each directory before its entries.
    pub fn with_descendants(&self) -> Result<Vec<Self>> {
        self.list_below()?;
        let mut paths = Vec::new();
        let mut found = Vec::new();
        let mut pending = vec![(self.node, None)];
        while let Some((node, dir)) = pending.pop() {
            let begin = paths.len();
            match dir {
                Some(dir) => push_path(&mut paths, dir, &node.name),
                None => paths.extend_from_slice(self.path_bytes()),
            }
            let path = begin..paths.len();
            let children = node.children.get().into_iter().flatten().rev();
            pending.extend(children.map(|child| (child, Some(path.clone()))));
            found.push((node, path));
        }
        let paths = Arc::<[u8]>::from(paths);
        let entries = found.into_iter().map(|(node, path)| Self {
            tree: self.tree,
            node,
            paths: Arc::clone(&paths),
            path,
        });
        Ok(entries.collect())
    }

    /// Returns the entry's digest; that of a directory covers its header only. Computed once, if
    /// the stat cache does not know it.
    ///
    /// # Errors
    /// `Changed` for a file that is no longer what the listing tells.
    pub(crate) fn digest(&self) -> Result<FileDigest> {
        if !self.recall_digest() {
            let digest = self.tree.compute_digest(self)?;
            self.node.digest.get_or_init(|| digest);
        }
        Ok(*self.node.digest.get().expect("it was just set"))
    }

    /// Reads the counted extended attributes.
    pub(super) fn xattrs(&self) -> Result<Xattrs> {
        let path = self.path();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = self.tree.root.open_file(path, flags, Mode::empty())?;
        read_xattrs(fd).map_err(|errno| cannot_read(path, errno))
    }

    /// Takes the digest from the stat cache if need be; returns whether it is known.
    fn recall_digest(&self) -> bool {
        if self.node.digest.get().is_some() {
            return true;
        }
        let cached = self.tree.cache.get(&self.attributes().stamp);
        if let Some(digest) = cached {
            self.node.digest.get_or_init(|| digest);
        }
        cached.is_some()
    }

    /// Returns the digest if it was computed already.
    pub(crate) fn known_digest(&self) -> Option<FileDigest> {
        self.node.digest.get().copied()
    }

    /// Returns what the file held when it was digested, if that is kept; to one caller only.
    pub(crate) fn take_kept(&self) -> Option<FileContent> {
        let mut kept = self
            .node
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let content = kept.take()?;
        self.tree
            .kept_bytes
            .fetch_sub(self.attributes().size, Ordering::Relaxed);
        Some(*content)
    }

    fn keep(&self, content: FileContent) {
        let mut kept = self
            .node
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Box::new(content));
    }

    /// Returns whether this is the topmost directory of a build context.
    pub(crate) fn is_context_top(&self) -> bool {
        self.tree.is_context && self.path_bytes().is_empty()
    }

    pub(crate) fn path_bytes(&self) -> &[u8] {
        &self.paths[self.path.clone()]
    }

    /// Returns whether this entry is beneath the directory `dir`.
    pub(crate) fn lies_in(&self, dir: &Self) -> bool {
        let dir = dir.path_bytes();
        let rest = self.path_bytes().strip_prefix(dir);
        rest.is_some_and(|rest| {
            if dir.is_empty() {
                !rest.is_empty()
            } else {
                rest.starts_with(b"/")
            }
        })
    }

    /// Lists all directories beneath this one, level by level.
    fn list_below(&self) -> Result<()> {
        let mut level = vec![self.clone()];
        while !level.is_empty() {
            for_each(&level, |dir| dir.node_children().map(drop))?;
            let mut next = Vec::new();
            for dir in &level {
                let nodes = dir.node_children()?.iter();
                let dirs = nodes.filter(|node| node.attributes.is_dir());
                next.extend(dirs.map(|node| dir.child_entry(node)));
            }
            level = next;
        }
        Ok(())
    }

    fn child_entry(&self, node: &'a Node) -> Self {
        let paths: Arc<[u8]> = join(self.path_bytes(), &node.name).into();
        Self {
            tree: self.tree,
            node,
            path: 0..paths.len(),
            paths,
        }
    }

    fn node_children(&self) -> Result<&'a [Node]> {
        if let Some(children) = self.node.children.get() {
            return Ok(children);
        }
        let mut listed = Listed::default();
        if self.attributes().is_dir() {
            // A scan has listed all; what is missing is a view's.
            let (all, nothing) = (Filter::default(), DirFilter::default());
            listed = list_dir(&self.tree.root, self.path_bytes(), &all, &nothing)?;
        }
        Ok(self.node.children.get_or_init(|| listed.nodes))
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.path()).finish()
    }
}

/// Appends the path of what is called `name` in the directory whose path lies at `dir`.
fn push_path(paths: &mut Vec<u8>, dir: Range<usize>, name: &[u8]) {
    let is_top = dir.is_empty();
    paths.extend_from_within(dir);
    if !is_top {
        paths.push(b'/');
    }
    paths.extend_from_slice(name);
}

/// Computes the digests of all `entries` that have one, on all processors if files must be read.
pub(crate) fn compute_digests(entries: &[Entry<'_>]) -> Result<()> {
    let is_unknown = |entry: &&Entry<'_>| !entry.is_context_top() && !entry.recall_digest();
    let unknown: Vec<&Entry<'_>> = entries.iter().filter(is_unknown).collect();
    for_each(&unknown, |entry| entry.digest().map(drop))
}

/// Runs `work` on all items, in parallel if they are many; returns one of the errors.
pub(super) fn for_each<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Send + Sync,
) -> Result<()> {
    if items.len() < PARALLEL_FROM {
        items.iter().try_for_each(work)
    } else {
        items.par_iter().try_for_each(work)
    }
}

/// Returns the error for a file that is not what the listing tells.
pub(crate) fn changed(path: &Path) -> Error {
    let message = format!("file changed during the build: `{}`", path.display());
    Error::new(ErrorKind::Changed, message)
}

pub(crate) fn cannot_read(path: &Path, errno: Errno) -> Error {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    Error::io(format!("cannot read `{}`", path.display()), errno)
}
