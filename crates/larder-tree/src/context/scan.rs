use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
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
    let mut top = Node::new(Box::default(), Attributes::new(&stat));
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
        let mut listed = match list_dir(root, &self.path, filter, &self.filter) {
            Ok(listed) => listed,
            Err(error) if self.may_be_unreadable(&error) => Listed::default(),
            Err(error) => return Err(error),
        };
        listed.nodes.iter_mut().for_each(reset_owner);
        self.node.children.get_or_init(|| listed.nodes);
        self.listed.get_or_init(|| listed.filters);
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

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// In the order of the names.
    pub(super) nodes: Vec<Node>,
    /// What the filter knows of those that are directories.
    filters: Vec<DirFilter>,
}

/// Lists the directory at `path`; what `filter` has no use for is left out.
pub(super) fn list_dir(
    root: &Root,
    path: &[u8],
    filter: &Filter,
    dir_filter: &DirFilter,
) -> Result<Listed> {
    let shown = Path::new(OsStr::from_bytes(path));
    let dir = root.open_dir(shown)?;
    let names = read_names(&dir).map_err(|errno| cannot_read(shown, errno))?;
    let mut listed = Listed::default();
    listed.nodes.reserve_exact(names.len());
    for (name, file_type) in names {
        let may_be_dir = matches!(file_type, FileType::Directory | FileType::Unknown);
        let decided = filter.decide((path, name.as_bytes()), may_be_dir, dir_filter);
        let Some((is_selected, below)) = decided else {
            continue;
        };
        let found = look_up(&dir, &name);
        match found {
            Ok((attributes, link_target)) if is_selected || attributes.is_dir() => {
                if attributes.is_dir() {
                    listed.filters.push(below);
                }
                listed.nodes.push(Node {
                    link_target,
                    is_selected,
                    ..Node::new(name.into_bytes().into(), attributes)
                });
            }
            // Gone meanwhile, or not selected after all.
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => {
                let path = join(path, name.as_bytes());
                return Err(cannot_read(Path::new(OsStr::from_bytes(&path)), errno));
            }
        }
    }
    Ok(listed)
}

/// Returns the names in a directory, in order, and what its listing says of their types.
fn read_names(dir: &OwnedFd) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(names)
}

/// Returns the attributes of an entry, and the target if it is a symlink.
fn look_up(dir: &OwnedFd, name: &CStr) -> Result<(Attributes, Box<[u8]>), Errno> {
    let attributes = Attributes::new(&fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?);
    let target = if attributes.kind == Kind::Symlink {
        fs::readlinkat(dir, name, Vec::new())?.into_bytes().into()
    } else {
        Box::default()
    };
    Ok((attributes, target))
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

    /// Returns whether the entry under a name in a directory is selected, and what its own entries
    /// need; `None` if neither it nor anything beneath it can be.
    fn decide(
        &self,
        (dir, name): (&[u8], &[u8]),
        may_be_dir: bool,
        parent: &DirFilter,
    ) -> Option<(bool, DirFilter)> {
        let mut is_selected = true;
        let mut below = DirFilter::default();
        if self.include.is_none() && self.exclude.is_none() {
            return Some((is_selected, below));
        }
        let path = &join(dir, name);
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

/// Returns the path of what is called `name` in a directory.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}
