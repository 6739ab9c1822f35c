//! What lies in a context: found by walking it once, without reading a file.

use std::path::Path;

use larder_tree::pattern::{MatchInfo, PatternMatcher};

use crate::error::{BuildError, Result};

/// A file of more bytes is a large one.
pub(super) const LARGE_BYTES: u64 = 10_000_000;
/// As many entries are looked at; a context with more is known well enough by then.
const MAX_ENTRIES: usize = 500_000;
/// As many paths of a kind are kept: one is shown, and a copy may take only some directories.
const MAX_EXAMPLES: usize = 10_000;

/// Directories and files that tools leave behind, or that hold secrets, and no image needs.
const JUNK: [&str; 23] = [
    ".git",
    ".hg",
    ".svn",
    "node_modules",
    "__pycache__",
    ".venv",
    "venv",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".gradle",
    ".terraform",
    ".next",
    ".idea",
    ".vscode",
    ".DS_Store",
    "*.pyc",
    ".env",
    ".netrc",
    ".ssh",
    ".aws",
];

/// What lies in a context, without what its ignore file leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// The name of the ignore file; `None` if there is none.
    pub ignore_file: Option<String>,
    /// The names of what lies at the top.
    pub top: Vec<String>,
    /// What tools have left behind, and what holds secrets.
    pub junk: Vec<Junk>,
    /// Files of more than 10 MB, with their sizes in bytes.
    pub large: Vec<(String, u64)>,
    /// Files that their group can write.
    pub group_writable: Vec<String>,
    /// Files that only their owner can write.
    pub others: Vec<String>,
}

/// Something that no image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Junk {
    /// The line for an ignore file.
    pub pattern: String,
    /// Where it was seen first.
    pub example: String,
    /// How many files it has, in all places.
    pub files_count: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

impl Junk {
    /// Whether a path is part of it.
    pub(super) fn covers(&self, path: &str) -> bool {
        let name = self.pattern.trim_start_matches("**/");
        path.split('/').any(|part| is_named(part, name))
    }
}

fn is_named(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None => name == pattern,
    }
}

/// Walks a context. `patterns` are what its ignore file leaves out.
///
/// # Errors
/// When the directory can't be read. What is unreadable beneath it is passed over.
pub(crate) fn survey(
    context: &Path,
    ignore_file: Option<String>,
    patterns: &[String],
) -> Result<Survey> {
    let matcher = PatternMatcher::new(patterns)?;
    let mut walk = Walk {
        matcher,
        survey: Survey {
            ignore_file,
            ..Survey::default()
        },
        entries: 0,
    };
    let entries = fs_err::read_dir(context)
        .map_err(|source| BuildError::invalid("the context can't be read").with_source(source))?;
    walk.directory(entries, "", &MatchInfo::default(), None);
    let mut survey = walk.survey;
    survey.junk.retain(|junk| junk.files_count > 0);
    Ok(survey)
}

struct Walk {
    matcher: PatternMatcher,
    survey: Survey,
    entries: usize,
}

impl Walk {
    /// Looks at a directory's entries. `junk` is which junk it lies in.
    fn directory(
        &mut self,
        entries: fs_err::ReadDir,
        parent: &str,
        parent_match: &MatchInfo,
        junk: Option<usize>,
    ) {
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return;
            }
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = match parent {
                "" => name.clone().into_owned(),
                parent => format!("{parent}/{name}"),
            };
            if parent.is_empty() {
                self.survey.top.push(name.clone().into_owned());
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                let (ignored, here) = self.matcher.matches_dir(path.as_bytes(), parent_match);
                if ignored && !self.matcher.may_except_below(path.as_bytes()) {
                    continue;
                }
                let junk = junk.or_else(|| self.junk(&name, &path));
                if let Ok(entries) = fs_err::read_dir(entry.path()) {
                    self.directory(entries, &path, &here, junk);
                }
            } else if !self.matcher.matches(path.as_bytes(), parent_match) {
                let junk = junk.or_else(|| self.junk(&name, &path));
                self.file(path, &metadata, junk);
            }
        }
    }

    fn file(&mut self, path: String, metadata: &std::fs::Metadata, junk: Option<usize>) {
        use std::os::unix::fs::PermissionsExt as _;
        let survey = &mut self.survey;
        if let Some(junk) = junk {
            let junk = &mut survey.junk[junk];
            junk.files_count += 1;
            junk.bytes += metadata.len();
            return;
        }
        if metadata.is_symlink() {
            return;
        }
        if metadata.len() > LARGE_BYTES {
            survey.large.push((path.clone(), metadata.len()));
        }
        let modes = match metadata.permissions().mode() & 0o020 {
            0 => &mut survey.others,
            _ => &mut survey.group_writable,
        };
        if modes.len() < MAX_EXAMPLES {
            modes.push(path);
        }
    }

    /// Returns which junk begins at an entry, if it does.
    fn junk(&mut self, name: &str, path: &str) -> Option<usize> {
        let kind = JUNK.iter().find(|kind| is_named(name, kind))?;
        let pattern = match *kind {
            // A repository lies at the top, mostly; its submodules do not.
            ".git" if path == ".git" => ".git".to_owned(),
            kind => format!("**/{kind}"),
        };
        let known = self
            .survey
            .junk
            .iter()
            .position(|junk| junk.pattern == pattern);
        Some(known.unwrap_or_else(|| {
            self.survey.junk.push(Junk {
                pattern,
                example: path.to_owned(),
                files_count: 0,
                bytes: 0,
            });
            self.survey.junk.len() - 1
        }))
    }
}
