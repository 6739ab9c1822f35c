use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, statat};
use rustix::io::Errno;

use super::tree::cannot_read;
use crate::beneath::{Root, read_names};
use crate::pattern::{Glob, clean_rooted, has_wildcards};
use crate::{Error, ErrorKind, Result};

/// How many symlinks in a row are followed, as in BuildKit.
const MAX_HOPS: usize = 255;

/// How many paths are followed in all, so that links which multiply each other come to an end.
const MAX_PATHS: usize = 100_000;

/// Returns the patterns for `paths` and for all that the symlinks on their way lead to, sorted,
/// without those that lie beneath another one. `None` if that is everything.
///
/// The last name with a wildcard before which no symlink stands is expanded to find the symlinks
/// among its matches, as `fsutil` does.
pub(super) fn follow_links(root: &Root, paths: &[String]) -> Result<Option<Vec<String>>> {
    let mut links = Links::new(root);
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut pending: Vec<(String, usize)> = paths.iter().map(|path| (path.clone(), 0)).collect();
    while let Some((path, hops)) = pending.pop() {
        let path = clean_rooted(&path);
        if hops > MAX_HOPS || !seen.insert(path.clone()) {
            continue;
        }
        if seen.len() > MAX_PATHS {
            let message = format!("the sources lead to more than {MAX_PATHS} paths");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let mut reached = String::new();
        for (index, name) in names.iter().enumerate() {
            let dir = reached.clone();
            reached = join(&reached, name);
            let targets = links.of(&dir, name)?;
            if !targets.is_empty() {
                let rest = names[index + 1..].join("/");
                let targets = targets.iter().map(|target| format!("{target}/{rest}"));
                pending.extend(targets.map(|path| (path, hops + 1)));
                break;
            }
        }
        found.insert(reached);
    }
    if found.contains("") {
        return Ok(None);
    }
    let mut patterns: Vec<String> = Vec::new();
    for path in found {
        let covered = patterns.last().is_some_and(|last| {
            let rest = path.strip_prefix(last.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        if !covered {
            patterns.push(path);
        }
    }
    Ok(Some(patterns))
}

/// The symlinks of a tree, many of which lie in the same directories.
struct Links<'a> {
    root: &'a Root,
    /// The directory that was asked for last, and its handle if it exists.
    dir: Option<(String, Option<OwnedFd>)>,
    /// What was found to be no symlink, or missing.
    others: HashSet<String>,
}

impl<'a> Links<'a> {
    fn new(root: &'a Root) -> Self {
        Self {
            root,
            dir: None,
            others: HashSet::new(),
        }
    }

    /// Returns where the symlinks lead that `name` means in the directory `dir`.
    fn of(&mut self, dir: &str, name: &str) -> Result<Vec<String>> {
        if !has_wildcards(name) {
            let path = join(dir, name);
            if self.others.contains(&path) {
                return Ok(Vec::new());
            }
            let target = self.target(dir, OsStr::new(name))?;
            if target.is_none() {
                self.others.insert(path);
            }
            return Ok(target.into_iter().collect());
        }
        let Ok(glob) = Glob::new(name) else {
            // Reported when the pattern is compiled.
            return Ok(Vec::new());
        };
        let names = match self.root.open_dir(dir) {
            Ok(fd) => read_names(fd).map_err(|e| cannot_read(Path::new(dir), e))?,
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut targets = Vec::new();
        for name in names {
            if glob.matches(name.as_bytes()) {
                targets.extend(self.target(dir, &name)?);
            }
        }
        Ok(targets)
    }

    /// Returns where the entry `name` of `dir` leads, from the root, if it is a symlink.
    fn target(&mut self, dir: &str, name: &OsStr) -> Result<Option<String>> {
        let root = self.root;
        let Some(fd) = self.enter(dir)? else {
            return Ok(None);
        };
        let path = || Path::new(dir).join(name);
        let stat = match statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(cannot_read(&path(), errno)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Ok(None);
        }
        let target = root.read_link(path())?;
        // Patterns are text; a target that isn't can't be asked for by one.
        Ok(target.to_str().map(|target| {
            if target.starts_with('/') {
                clean_rooted(target)
            } else {
                clean_rooted(&format!("{dir}/{target}"))
            }
        }))
    }

    /// Opens a directory for look-ups, if it exists and isn't open.
    fn enter(&mut self, dir: &str) -> Result<Option<&OwnedFd>> {
        let is_open = self.dir.as_ref().is_some_and(|(open, _)| open == dir);
        if !is_open {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = match self.root.open_file(dir, flags, Mode::empty()) {
                Ok(fd) => Some(fd),
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(error),
            };
            self.dir = Some((dir.to_owned(), fd));
        }
        Ok(self.dir.as_ref().and_then(|(_, fd)| fd.as_ref()))
    }
}

fn is_missing(error: &Error) -> bool {
    let kind = error.io_source().map(std::io::Error::kind);
    error.kind() == ErrorKind::NotFound || kind == Some(std::io::ErrorKind::NotADirectory)
}

fn join(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    }
}
