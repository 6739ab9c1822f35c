use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::context::{Entry, Kind};
use crate::pattern::{MatchInfo, PatternMatcher};

/// Which entries beneath a source are copied. By default all.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    pub(super) include: Option<PatternMatcher>,
    pub(super) exclude: Option<PatternMatcher>,
}

/// All that is copied from one source, so that directories can be made first and their files then
/// in parallel.
pub(super) struct Plan<'a> {
    /// Each before those in it.
    pub(super) dirs: Vec<PlannedDir<'a>>,
    /// Further names of files, when all files are in place.
    pub(super) links: Vec<PlannedLink>,
}

/// A directory to be made, unless it exists.
pub(super) struct PlannedDir<'a> {
    pub(super) source: Entry<'a>,
    /// Path in the destination, without a symlink in it.
    pub(super) target: PathBuf,
    /// Whether it is copied itself, or made for the sake of what is in it.
    pub(super) is_selected: bool,
    /// What is not a directory, in the order of the names.
    pub(super) files: Vec<Entry<'a>>,
}

/// A further name of a file.
pub(super) struct PlannedLink {
    /// Path in the destination.
    pub(super) target: PathBuf,
    /// The path of the file.
    pub(super) original: PathBuf,
}

/// A directory on the way to the current entry.
struct Parent<'a> {
    entry: Entry<'a>,
    target: PathBuf,
    include: MatchInfo,
    exclude: MatchInfo,
    /// Its place in the plan, once something in it is copied.
    planned: Option<usize>,
}

impl<'a> Plan<'a> {
    /// Plans the copy of the directory `source` to `target`.
    pub(super) fn new(source: &Entry<'a>, target: &Path, patterns: &Patterns) -> Result<Self> {
        let mut planner = Planner {
            plan: Self {
                dirs: Vec::new(),
                links: Vec::new(),
            },
            parents: Vec::new(),
            originals: HashMap::new(),
        };
        let source_length = source.path_bytes().len();
        for entry in source.with_descendants()? {
            let below = &entry.path_bytes()[source_length..];
            let below = below.strip_prefix(b"/").unwrap_or(below);
            planner.visit(entry.clone(), below, target, patterns);
        }
        Ok(planner.plan)
    }
}

struct Planner<'a> {
    plan: Plan<'a>,
    parents: Vec<Parent<'a>>,
    /// Where the first name of each file with several goes.
    originals: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Planner<'a> {
    fn visit(&mut self, entry: Entry<'a>, below: &[u8], target: &Path, patterns: &Patterns) {
        while let Some(parent) = self.parents.last()
            && !entry.lies_in(&parent.entry)
        {
            self.parents.pop();
        }
        let (is_selected, include, exclude, target) = match self.parents.last() {
            // The source itself: patterns are about what is in it.
            None => (
                true,
                MatchInfo::default(),
                MatchInfo::default(),
                target.to_owned(),
            ),
            Some(parent) => {
                let (is_selected, include, exclude) = patterns.evaluate(below, parent);
                let name = OsStr::from_bytes(entry.name());
                (is_selected, include, exclude, parent.target.join(name))
            }
        };
        if entry.attributes().is_dir() {
            self.parents.push(Parent {
                entry,
                target,
                include,
                exclude,
                planned: None,
            });
            if is_selected {
                let index = self.plan_parents();
                self.plan.dirs[index].is_selected = true;
            }
        } else if is_selected && entry.attributes().kind != Kind::Socket {
            let index = self.plan_parents();
            if let Some(original) = self.original(&entry, &target) {
                self.plan.links.push(PlannedLink { target, original });
            } else {
                self.plan.dirs[index].files.push(entry);
            }
        }
    }

    /// Plans the directories on the way, and returns the place of the innermost one.
    fn plan_parents(&mut self) -> usize {
        for parent in &mut self.parents {
            if parent.planned.is_none() {
                parent.planned = Some(self.plan.dirs.len());
                self.plan.dirs.push(PlannedDir {
                    source: parent.entry.clone(),
                    target: parent.target.clone(),
                    is_selected: false,
                    files: Vec::new(),
                });
            }
        }
        let innermost = self.parents.last().and_then(|parent| parent.planned);
        innermost.expect("a planned entry lies in a directory")
    }

    /// Returns where the same file was planned to go under another name.
    fn original(&mut self, entry: &Entry<'a>, target: &Path) -> Option<PathBuf> {
        let attributes = entry.attributes();
        if attributes.kind != Kind::File || attributes.link_count < 2 {
            return None;
        }
        let identity = (attributes.stamp.device, attributes.stamp.inode);
        let original = self.originals.get(&identity).cloned();
        if original.is_none() {
            self.originals.insert(identity, target.to_owned());
        }
        original
    }
}

impl Patterns {
    /// Returns whether an entry of the directory `parent` is copied, and what its own entries need.
    fn evaluate(&self, path: &[u8], parent: &Parent<'_>) -> (bool, MatchInfo, MatchInfo) {
        let evaluate = |matcher: &Option<PatternMatcher>, above: &MatchInfo, default| {
            matcher
                .as_ref()
                .map_or((default, MatchInfo::default()), |matcher| {
                    matcher.matches_dir(path, above)
                })
        };
        let (included, include) = evaluate(&self.include, &parent.include, true);
        let (excluded, exclude) = evaluate(&self.exclude, &parent.exclude, false);
        (included && !excluded, include, exclude)
    }
}
