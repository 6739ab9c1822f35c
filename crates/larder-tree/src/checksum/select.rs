use crate::context::{Entry, Kind, Tree};
use crate::pattern::{
    Glob, MatchInfo, PatternMatcher, clean_rooted, has_wildcards, split_wildcards,
};
use crate::{Error, ErrorKind, Result};

/// Names paths of a tree that a content digest covers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// The path, or the pattern; relative to the tree's topmost directory, out of which `..` does
    /// not lead.
    pub path: String,
    /// Whether `*`, `?` and `[` in `path` make it a pattern.
    pub wildcard: bool,
    /// Whether a symlink that `path` names, or matches, stands for what it leads to.
    pub follow_links: bool,
    /// If not empty, only what matches one of these, relative to the path or the match.
    pub include_patterns: Vec<String>,
    /// Without what matches these.
    pub exclude_patterns: Vec<String>,
    /// Paths that must exist.
    pub required_paths: Vec<String>,
}

/// What a selector covers.
pub(super) enum Selection<'a> {
    /// One entry with all beneath it.
    Whole(Entry<'a>),
    /// Directory headers and files.
    List(Vec<Item<'a>>),
}

/// A directory's header, or another entry, in a [`Selection::List`].
#[derive(Clone)]
pub(super) struct Item<'a> {
    /// The path as the selector spells it, with `/` in front.
    pub(super) path: Vec<u8>,
    pub(super) entry: Entry<'a>,
    /// What stands for the entry with all beneath it: where the selector names a symlink.
    pub(super) target: Option<Entry<'a>>,
}

impl Selector {
    /// Returns the path cleaned, `/` or `/a/b`.
    pub(super) fn clean_path(&self) -> String {
        clean_rooted(&self.path)
    }

    /// Returns whether more than one path, or less than all beneath it, is meant.
    pub(super) fn is_filtered(&self) -> bool {
        let patterns = [
            &self.include_patterns,
            &self.exclude_patterns,
            &self.required_paths,
        ];
        self.is_pattern() || patterns.iter().any(|patterns| !patterns.is_empty())
    }

    /// Returns the part of the path before any wildcard, without a `/` at the end.
    pub(super) fn prefix(&self) -> String {
        let path = self.clean_path();
        let prefix = if self.is_pattern() {
            split_wildcards(&path).0
        } else {
            path
        };
        prefix.strip_suffix('/').unwrap_or(&prefix).to_owned()
    }

    /// Finds what the selector covers.
    ///
    /// # Errors
    /// `NotFound` for a path that doesn't exist, unless it is a pattern or has patterns.
    pub(super) fn select<'a>(&self, tree: &'a Tree) -> Result<Selection<'a>> {
        let find = |path: &str| -> Result<Entry<'a>> {
            let found = tree.resolve(path.as_bytes(), self.follow_links)?;
            found.ok_or_else(|| {
                let shown = path.strip_suffix('/').unwrap_or(path);
                Error::new(ErrorKind::NotFound, format!("{shown:?}: not found"))
            })
        };
        for path in &self.required_paths {
            find(&clean_rooted(path))?;
        }
        if self.is_filtered() {
            self.list(tree).map(Selection::List)
        } else {
            find(&self.clean_path()).map(Selection::Whole)
        }
    }

    fn is_pattern(&self) -> bool {
        self.wildcard && has_wildcards(&self.path)
    }

    fn list<'a>(&self, tree: &'a Tree) -> Result<Vec<Item<'a>>> {
        let matcher = |patterns: &[String], which: &str| {
            let matcher = (!patterns.is_empty()).then(|| PatternMatcher::new(patterns));
            matcher.transpose().map_err(|error| error.within(which))
        };
        let glob = self.is_pattern().then(|| Glob::new(&self.clean_path()));
        let mut lister = Lister {
            tree,
            glob: glob.transpose()?,
            include: matcher(&self.include_patterns, "invalid includepatterns")?,
            exclude: matcher(&self.exclude_patterns, "invalid excludepatterns")?,
            follow_links: self.follow_links,
            matched: None,
            parents: Vec::new(),
            items: Vec::new(),
        };
        let prefix = self.prefix().into_bytes();
        if lister.glob.is_none() {
            lister.matched = Some(prefix.clone());
        }
        // Symlinks before the first wildcard are followed.
        if let Some(base) = tree.resolve(&prefix, lister.glob.is_some())? {
            let base_length = base.path_bytes().len();
            for entry in base.with_descendants()? {
                let rest = &entry.path_bytes()[base_length..];
                let slash: &[u8] = match rest {
                    [] | [b'/', ..] => b"",
                    _ => b"/",
                };
                lister.visit([&prefix, slash, rest].concat(), entry)?;
            }
        }
        Ok(lister.items)
    }
}

/// Decides, entry by entry in the order of a tree, which ones a selector covers.
struct Lister<'a> {
    tree: &'a Tree,
    glob: Option<Glob>,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    follow_links: bool,
    /// The path that the glob matched last, or the selector's own; patterns are relative to it.
    matched: Option<Vec<u8>>,
    /// The directories that lead to the current entry.
    parents: Vec<Parent<'a>>,
    items: Vec<Item<'a>>,
}

struct Parent<'a> {
    item: Item<'a>,
    is_listed: bool,
    patterns: Patterns,
}

/// What the patterns know of a directory.
#[derive(Default)]
struct Patterns {
    include: MatchInfo,
    exclude: MatchInfo,
}

impl<'a> Lister<'a> {
    fn visit(&mut self, path: Vec<u8>, entry: Entry<'a>) -> Result<()> {
        while let Some(parent) = self.parents.last()
            && !is_below(&path, &parent.item.path)
        {
            self.parents.pop();
        }
        if let Some(glob) = &self.glob {
            let lies_in_match = |matched: &Vec<u8>| is_below(&path, matched);
            if !self.matched.as_ref().is_some_and(lies_in_match) {
                self.matched = glob.matches(&path).then(|| path.clone());
            }
        } else if path.is_empty() {
            // The topmost directory stands for its entries only.
            return Ok(());
        }
        let Some(matched) = &self.matched else {
            return Ok(());
        };
        let candidate = &path[matched.len()..];
        let candidate = candidate.strip_prefix(b"/").unwrap_or(candidate);
        let (is_listed, patterns) = self.evaluate(candidate);
        let target = match entry.attributes().kind {
            // Links further down are copied as links, so what they lead to doesn't count.
            Kind::Symlink if self.follow_links && candidate.is_empty() => {
                self.tree.resolve(entry.path_bytes(), true)?
            }
            _ => None,
        };
        let item = Item {
            path,
            entry,
            target,
        };
        if is_listed {
            for parent in &mut self.parents {
                if !std::mem::replace(&mut parent.is_listed, true) {
                    self.items.push(parent.item.clone());
                }
            }
            self.items.push(item.clone());
        }
        if item.entry.attributes().is_dir() {
            self.parents.push(Parent {
                item,
                is_listed,
                patterns,
            });
        }
        Ok(())
    }

    /// Returns whether the patterns take `candidate`, and what its entries need.
    fn evaluate(&self, candidate: &[u8]) -> (bool, Patterns) {
        let unknown = Patterns::default();
        let above = self.parents.last().map_or(&unknown, |dir| &dir.patterns);
        let mut patterns = Patterns::default();
        if let Some(include) = &self.include {
            let matched;
            (matched, patterns.include) = include.matches_dir(candidate, &above.include);
            if !matched {
                return (false, patterns);
            }
        }
        if let Some(exclude) = &self.exclude {
            let matched;
            (matched, patterns.exclude) = exclude.matches_dir(candidate, &above.exclude);
            if matched {
                return (false, patterns);
            }
        }
        (true, patterns)
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with(b"/"))
}
