use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64};

use rustix::fs::{self, AtFlags, FileType, RawDir};
use rustix::io::Errno;

use super::attributes::{Attributes, Kind};
use super::follow::follow_links;
use super::stat_cache::StatCache;
use super::tree::{Node, Tree, cannot_read, for_each};
use crate::beneath::Root;
use crate::pattern::{MatchInfo, PatternMatcher};
use crate::{Error, Result};

/// What belongs to a build context.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScanOptions<'a> {
    /// Patterns of `.dockerignore`, see
    /// [`read_ignore_file`](crate::pattern::read_ignore_file).
    pub excludes: &'a [String],
    /// If not empty, only what matches one of these patterns.
    pub includes: &'a [String],
    /// Only these paths, and those that they lead to where they are symlinks; wildcards are
    /// allowed. `None` for no such limit.
    pub follow_paths: Option<&'a [String]>,
    /// The time before the scan, nanoseconds since 1970. What changed shortly before it, or
    /// later, is too young for the stat cache.
    pub started_at_nanos: i64,
}

/// Which entries a scan takes. By default all.
#[derive(Debug, Default)]
pub(super) struct Filter {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
}

/// What the filter knows of a directory.
#[derive(Debug, Default)]
pub(super) struct DirFilter {
    include: MatchInfo,
    exclude: MatchInfo,
}

/// A directory to be listed.
struct Pending<'a> {
    node: &'a Node,
    path: Vec<u8>,
    filter: DirFilter,
    /// What is beneath it, where a directory is, with what the filter knows of it.
    listed: OnceLock<Vec<DirFilter>>,
}

/// Lists a build context. All entries belong to user and group 0.
///
/// # Errors
/// `InvalidInput` for a malformed pattern; `Io` for a directory that can't be read, unless it is
/// excluded.
pub fn scan(root: Root, options: &ScanOptions<'_>, cache: StatCache) -> Result<Tree> {
    let filter = Filter::new(&root, options)?;
    let stat = fs::fstat(&root).map_err(|errno| Error::io("cannot look up `.`", errno))?;
    let mut top = Node::new(&[], Attributes::new(&stat));
    reset_owner(&mut top);
    list_all(&root, &top, &filter)?;
    drop_unselected(&mut top);
    Ok(Tree {
        root,
        top,
        is_context: true,
        cache,
        started_at_nanos: options.started_at_nanos,
        learned: AtomicBool::new(false),
        kept_bytes: AtomicU64::new(0),
    })
}

/// Lists all directories that may hold something, level by level.
fn list_all(root: &Root, top: &Node, filter: &Filter) -> Result<()> {
    let mut level = vec![Pending::new(top, Vec::new(), DirFilter::default())];
    while !level.is_empty() {
        for_each(&level, |dir| dir.list(root, filter))?;
        let mut next = Vec::new();
        for dir in level {
            let children = dir.node.children.get().into_iter().flatten();
            let dirs = children.filter(|node| node.attributes.is_dir());
            let filters = dir.listed.into_inner().unwrap_or_default();
            for (node, filter) in dirs.zip(filters) {
                let path = join(&dir.path, &node.name);
                next.push(Pending::new(node, path, filter));
            }
        }
        level = next;
    }
    Ok(())
}

impl<'a> Pending<'a> {
    fn new(node: &'a Node, path: Vec<u8>, filter: DirFilter) -> Self {
        Self {
            node,
            path,
            filter,
            listed: OnceLock::new(),
        }
    }

    fn list(&self, root: &Root, filter: &Filter) -> Result<()> {
        let listed = match list_dir(root, &self.path, filter, &self.filter) {
            Ok(listed) => listed,
            Err(error) if self.may_be_unreadable(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut nodes = Vec::with_capacity(listed.len());
        let mut filters = Vec::new();
        for (mut node, filter) in listed {
            reset_owner(&mut node);
            if node.attributes.is_dir() {
                filters.push(filter);
            }
            nodes.push(node);
        }
        self.node.children.get_or_init(|| nodes);
        self.listed.get_or_init(|| filters);
        Ok(())
    }

    /// Returns whether it does not matter that this directory can't be read: it is excluded, or
    /// gone.
    fn may_be_unreadable(&self, error: &Error) -> bool {
        let kind = error.io_source().map(std::io::Error::kind);
        match kind {
            Some(std::io::ErrorKind::PermissionDenied) => !self.node.is_selected,
            Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => true,
            _ => false,
        }
    }
}

/// Lists the directory at `path`, in the order of the names; what `filter` has no use for is left
/// out.
pub(super) fn list_dir(
    root: &Root,
    path: &[u8],
    filter: &Filter,
    dir_filter: &DirFilter,
) -> Result<Vec<(Node, DirFilter)>> {
    let shown = Path::new(OsStr::from_bytes(path));
    let dir = root.open_dir(shown)?;
    let mut listed = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| cannot_read(shown, errno))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let child_path = join(path, name);
        let may_be_dir = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        let Some((is_selected, below)) = filter.decide(&child_path, may_be_dir, dir_filter) else {
            continue;
        };
        match look_up(&dir, name) {
            Ok(node) if is_selected || node.attributes.is_dir() => {
                listed.push((
                    Node {
                        is_selected,
                        ..node
                    },
                    below,
                ));
            }
            // Gone meanwhile, or not selected after all.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => {
                let child_path = Path::new(OsStr::from_bytes(&child_path));
                return Err(cannot_read(child_path, errno));
            }
        }
    }
    listed.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(listed)
}

fn look_up(dir: &OwnedFd, name: &[u8]) -> Result<Node, Errno> {
    let stat = fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut node = Node::new(name, Attributes::new(&stat));
    if node.attributes.kind == Kind::Symlink {
        let target = fs::readlinkat(dir.as_fd(), name, Vec::new())?;
        node.link_target = target.into_bytes().into();
    }
    Ok(node)
}

impl Filter {
    fn new(root: &Root, options: &ScanOptions<'_>) -> Result<Self> {
        let mut includes = options.includes.to_vec();
        if let Some(paths) = options.follow_paths
            && let Some(targets) = follow_links(root, paths)?
        {
            includes.extend(targets);
        }
        let matcher = |patterns: &[String]| -> Result<Option<PatternMatcher>> {
            let matcher = PatternMatcher::new(patterns)?;
            Ok((!patterns.is_empty()).then_some(matcher))
        };
        Ok(Self {
            include: matcher(&includes).map_err(|e| e.within("invalid includepatterns"))?,
            exclude: matcher(options.excludes).map_err(|e| e.within("invalid excludepatterns"))?,
        })
    }

    /// Returns whether the entry at `path` is selected, and what its own entries need; `None` if
    /// neither it nor anything beneath it can be.
    fn decide(
        &self,
        path: &[u8],
        may_be_dir: bool,
        parent: &DirFilter,
    ) -> Option<(bool, DirFilter)> {
        let mut is_selected = true;
        let mut below = DirFilter::default();
        if let Some(include) = &self.include {
            let matched;
            (matched, below.include) = evaluate(include, path, may_be_dir, &parent.include);
            let may_hold = may_be_dir && include.may_match_below(path);
            if !matched && !may_hold {
                return None;
            }
            is_selected &= matched;
        }
        if let Some(exclude) = &self.exclude {
            let matched;
            (matched, below.exclude) = evaluate(exclude, path, may_be_dir, &parent.exclude);
            let may_hold = may_be_dir && exclude.may_except_below(path);
            if matched && !may_hold {
                return None;
            }
            is_selected &= !matched;
        }
        Some((is_selected, below))
    }
}

fn evaluate(
    matcher: &PatternMatcher,
    path: &[u8],
    may_be_dir: bool,
    parent: &MatchInfo,
) -> (bool, MatchInfo) {
    if may_be_dir {
        matcher.matches_dir(path, parent)
    } else {
        (matcher.matches(path, parent), MatchInfo::default())
    }
}

/// Takes away the directories that are not selected and hold nothing that is; returns whether
/// anything is left.
fn drop_unselected(node: &mut Node) -> bool {
    let mut is_kept = node.is_selected;
    if let Some(children) = node.children.get_mut() {
        children.retain_mut(drop_unselected);
        is_kept |= !children.is_empty();
    }
    is_kept
}

fn reset_owner(node: &mut Node) {
    node.attributes.uid = 0;
    node.attributes.gid = 0;
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}
