use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::options::{CopyOptions, CopyStats, timespec};
use super::plan::{Patterns, Plan, PlannedDir, PlannedLink};
use super::transfer::{Target, Transfer, cannot_write, shown};
use crate::apply::{self, ApplyOptions, Ownership};
use crate::beneath::DirAttributes;
use crate::context::{Entry, Kind, Stamp, Tree, changed};
use crate::erofs::Past;
use crate::pattern::{Glob, PatternMatcher, clean_rooted, has_wildcards, split_wildcards};
use crate::quota::{self, Quota, Unlimited};
use crate::sink::Sink;
use crate::sink::operations::Place;
use crate::{Error, ErrorKind, Result};

/// Fewer directories than this are not worth a second thread.
const PARALLEL_FROM: usize = 8;

/// Copies from `source` to `destination`. Neither may change meanwhile.
///
/// # Errors
/// `NotFound` if there is nothing to copy (`"/a": not found`); `InvalidInput` where a directory
/// meets a file, and for malformed patterns; `Changed` for a file of a build context that is no
/// longer what it was when it was scanned, or digested; `Io` for all that the system refuses.
/// Paths in messages are those of the trees.
pub fn copy(source: &Tree, destination: &impl Sink, options: &CopyOptions) -> Result<CopyStats> {
    copy_within(source, destination, options, &Unlimited)
}

/// As [`copy`], bounded by `quota`.
pub fn copy_within(
    source: &Tree,
    destination: &impl Sink,
    options: &CopyOptions,
    quota: &dyn Quota,
) -> Result<CopyStats> {
    copy_again(source, destination, options, quota, None)
}

/// As [`copy_within`]; what is as it was when `past` was made is taken from there, unread.
pub fn copy_again(
    source: &Tree,
    destination: &impl Sink,
    options: &CopyOptions,
    quota: &dyn Quota,
    past: Option<&Past>,
) -> Result<CopyStats> {
    let matcher = |patterns: &[String], which: &str| {
        let matcher = (!patterns.is_empty()).then(|| PatternMatcher::new(patterns));
        matcher.transpose().map_err(|error| error.within(which))
    };
    let patterns = Patterns {
        include: matcher(&options.include_patterns, "invalid includepatterns")?,
        exclude: matcher(&options.exclude_patterns, "invalid excludepatterns")?,
    };
    let mut transfer = Transfer::new(source, destination, options, quota);
    transfer.past = past;
    let mut copier = Copier {
        transfer,
        destination,
        patterns,
        created: Vec::new(),
        stats: CopyStats::default(),
    };
    copier.run()?;
    Ok(copier.stats)
}

struct Copier<'a, S> {
    transfer: Transfer<'a, S>,
    destination: &'a S,
    patterns: Patterns,
    /// Directories made that lead to the destination.
    created: Vec<PathBuf>,
    stats: CopyStats,
}

impl<'a, S: Sink> Copier<'a, S> {
    fn run(&mut self) -> Result<()> {
        let (tree, options) = (self.transfer.source, self.transfer.options);
        if !options.create_dest_path {
            self.check_parent()?;
        }
        for path in &options.required_paths {
            find(tree, &clean_rooted(path), options.follow_symlink)?;
        }
        for (path, entry) in self.sources()? {
            let is_file = entry.attributes().kind == Kind::File;
            if !(options.unpack_archives && is_file && self.unpack(&entry)?) {
                self.copy_source(&path, &entry)?;
            }
        }
        self.set_created_times()
    }

    /// Returns what the source path means: each with the path that it was named by.
    fn sources(&self) -> Result<Vec<(PathBuf, Entry<'a>)>> {
        let (tree, options) = (self.transfer.source, self.transfer.options);
        let path = clean_rooted(&options.src);
        if !options.allow_wildcard || !has_wildcards(&path) {
            let entry = find(tree, &path, options.follow_symlink)?;
            return Ok(vec![(path.into(), entry)]);
        }
        let matches = expand(tree, &path, options.follow_symlink)?;
        if matches.is_empty() && !options.allow_empty_wildcard {
            return Err(Error::new(ErrorKind::NotFound, format!("{path} not found")));
        }
        let mut sources = Vec::with_capacity(matches.len());
        for path in matches {
            let bytes = path.as_os_str().as_bytes();
            let found = tree.resolve(bytes, options.follow_symlink)?;
            let entry = found.ok_or_else(|| not_found(&format!("/{}", path.display())))?;
            sources.push((path, entry));
        }
        Ok(sources)
    }

    fn copy_source(&mut self, path: &Path, entry: &Entry<'a>) -> Result<()> {
        let options = self.transfer.options;
        let is_dir = entry.attributes().is_dir();
        let dest = clean_rooted(&options.dest);
        if names_a_directory(&options.dest) {
            self.create_dirs(Path::new(&dest))?;
        }
        let mut target = self.destination.resolve(Path::new(&dest))?;
        // The directories above are copied up.
        self.transfer
            .take(&target, quota::directories_bytes(&target))?;
        let existing = self.look_up(&target)?;
        let goes_inside = if is_dir {
            existing.is_some() && !options.dir_copy_contents
        } else {
            existing == Some(FileType::Directory)
        };
        if goes_inside {
            target.push(path.file_name().unwrap_or_default());
        }
        if is_dir && options.dir_copy_contents && existing.is_none() {
            self.create_dirs(&target)?;
        } else if let Some(parent) = target.parent() {
            self.create_dirs(parent)?;
        }
        if is_dir {
            self.copy_dir(entry, &target)
        } else {
            self.copy_file(entry, &target)
        }
    }

    fn copy_file(&mut self, entry: &Entry<'a>, target: &Path) -> Result<()> {
        if entry.attributes().kind == Kind::Socket {
            return Ok(());
        }
        let source_dir = entry.path().parent().unwrap_or(Path::new(""));
        let from = self.transfer.source.root().open_dir(source_dir)?;
        let (dir, name) = self.parent_of(target)?;
        let target = Target {
            dir: &dir,
            name,
            path: target,
        };
        self.stats.size_bytes += self.transfer.copy(entry, from, &target)?;
        self.stats.file_count += 1;
        Ok(())
    }

    /// Copies a directory in three steps: all directories, all files, then what directories
    /// can only be given when they are full.
    fn copy_dir(&mut self, source: &Entry<'a>, target: &Path) -> Result<()> {
        let plan = Plan::new(source, target, &self.patterns)?;
        let mut made = Vec::with_capacity(plan.dirs.len());
        for (index, dir) in plan.dirs.iter().enumerate() {
            made.push(self.make_dir(dir, index == 0)?);
        }
        let size_bytes = AtomicU64::new(0);
        let fill = |dir: &PlannedDir<'a>| -> Result<()> {
            size_bytes.fetch_add(self.fill_dir(dir)?, Ordering::Relaxed);
            Ok(())
        };
        if plan.dirs.len() < PARALLEL_FROM || !S::IS_PARALLEL {
            plan.dirs.iter().try_for_each(fill)?;
        } else {
            plan.dirs.par_iter().try_for_each(fill)?;
        }
        for link in &plan.links {
            self.link(link)?;
        }
        for (index, (dir, is_new)) in plan.dirs.iter().zip(&made).enumerate().rev() {
            self.finish_dir(dir, *is_new, index == 0)?;
        }
        let files: usize = plan.dirs.iter().map(|dir| dir.files.len()).sum();
        self.stats.size_bytes += size_bytes.into_inner();
        self.stats.file_count += (files + plan.links.len()) as u64;
        Ok(())
    }

    /// Makes a directory of the plan unless it exists; returns whether it is new.
    fn make_dir(&self, dir: &PlannedDir<'a>, is_top: bool) -> Result<bool> {
        let target = &dir.target;
        if target.as_os_str().is_empty() {
            return Ok(false);
        }
        let (parent, name) = self.parent_of(target)?;
        let failed = |errno| cannot_write(target, errno);
        let bytes = quota::directory_bytes() + quota::name_bytes(name.len());
        self.transfer.take(target, bytes)?;
        let create = || self.destination.make_dir(&parent, name);
        match create() {
            Err(Errno::EXIST) => {}
            result => return result.map(|()| true).map_err(failed),
        }
        let file_type = self.destination.type_of(&parent, name).map_err(failed)?;
        if file_type == FileType::Directory {
            if !is_top && !dir.is_selected {
                let mode = dir.source.attributes().mode;
                self.destination
                    .set_mode(Place::Entry(&parent, name), mode)
                    .map_err(failed)?;
            }
            return Ok(false);
        }
        if !self.transfer.options.always_replace_existing_dest_paths {
            return Err(not_a_directory(target));
        }
        self.destination.remove(&parent, name).map_err(failed)?;
        create().map(|()| true).map_err(failed)
    }

    /// Copies the files of a directory; returns their bytes.
    fn fill_dir(&self, dir: &PlannedDir<'a>) -> Result<u64> {
        if dir.files.is_empty() {
            return Ok(0);
        }
        let from = self.transfer.source.root().open_dir(dir.source.path())?;
        let to = self.destination.open_dir(&dir.target)?;
        let mut size_bytes = 0;
        for entry in &dir.files {
            let name = OsStr::from_bytes(entry.name());
            let target = Target {
                dir: &to,
                name,
                path: &dir.target.join(name),
            };
            size_bytes += self.transfer.copy(entry, &from, &target)?;
        }
        Ok(size_bytes)
    }

    fn link(&self, link: &PlannedLink) -> Result<()> {
        let (original_dir, original_name) = self.parent_of(&link.original)?;
        let (dir, name) = self.parent_of(&link.target)?;
        let target = Target {
            dir: &dir,
            name,
            path: &link.target,
        };
        self.transfer.link((&original_dir, original_name), &target)
    }

    /// Gives a directory its attributes: those of the source if it is new or was replaced as part
    /// of a tree; the destination itself keeps its own but for the time.
    fn finish_dir(&self, dir: &PlannedDir<'a>, is_new: bool, is_top: bool) -> Result<()> {
        if !(is_new || is_top || dir.is_selected) {
            return Ok(());
        }
        let made = self.destination.open_dir(&dir.target)?;
        if is_top && !is_new {
            self.transfer.set_dir_times(&dir.source, &made, &dir.target)
        } else {
            self.transfer
                .set_dir_attributes(&dir.source, &made, &dir.target)
        }
    }

    /// Unpacks the file if it is an archive; returns whether it is.
    fn unpack(&mut self, entry: &Entry<'a>) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let root = self.transfer.source.root();
        let fd = root.open_file(entry.path(), flags, Mode::empty())?;
        let mut file = File::from(fd);
        let failed = |error| Error::io(format!("cannot read `{}`", entry.path().display()), error);
        let check = |fd: &File| -> Result<()> {
            let stat = fs::fstat(fd).map_err(|errno| failed(errno.into()))?;
            if Stamp::new(&stat) == entry.attributes().stamp {
                Ok(())
            } else {
                Err(changed(entry.path()))
            }
        };
        check(&file)?;
        if !apply::is_archive(&mut file)? {
            return Ok(false);
        }
        file.rewind().map_err(failed)?;
        let options = self.transfer.options;
        let dest = clean_rooted(&options.dest);
        let dir = self.create_dirs(Path::new(&dest))?;
        let dir = self.destination.subtree(&dir)?;
        // What can't be restored is left out, as BuildKit does without a word.
        let mut ignore = |warning: apply::Warning| tracing::debug!(%warning, "unpacking");
        let mut apply_options = ApplyOptions::new(&mut ignore);
        apply_options.quota = self.transfer.quota;
        // Directories that the archive does not name are of the present, as any other new one.
        apply_options.implied.time = options.timestamp.map(timespec);
        if let Some((uid, gid)) = options.owner {
            apply_options.ownership = Ownership::Fixed(uid, gid);
            apply_options.implied.owner = Some((uid, gid));
        }
        apply::unpack(
            &dir,
            (&mut file).take(entry.attributes().size),
            apply_options,
        )
        .map_err(|error| error.within(format!("cannot unpack `{}`", entry.path().display())))?;
        check(&file)?;
        self.stats.size_bytes += entry.attributes().size;
        Ok(true)
    }

    /// Makes the directory at `path` and those that lead to it.
    fn create_dirs(&mut self, path: &Path) -> Result<S::Dir> {
        let options = self.transfer.options;
        let attributes = DirAttributes {
            mode: 0o755,
            owner: options.owner,
            time: options.timestamp.map(timespec),
        };
        self.transfer.take(path, quota::directories_bytes(path))?;
        let made = self.destination.create_dir_all(path, attributes);
        let made = made.map_err(|error| match error.io_source().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::NotADirectory) => {
                not_a_directory(path.strip_prefix("/").unwrap_or(path))
            }
            _ => error,
        })?;
        let (dir, created) = made;
        self.created.extend(created);
        Ok(dir)
    }

    /// Sets the times of the directories that lead to the destination anew: what was put into
    /// them changed them.
    fn set_created_times(&self) -> Result<()> {
        let Some(nanos) = self.transfer.options.timestamp else {
            return Ok(());
        };
        for path in self.created.iter().rev() {
            let dir = self.destination.open_dir(path)?;
            self.destination
                .set_time(Place::Dir(&dir), timespec(nanos))
                .map_err(|errno| cannot_write(path, errno))?;
        }
        Ok(())
    }

    /// Returns the directory that a real path of the destination lies in, and its last name.
    fn parent_of<'p>(&self, path: &'p Path) -> Result<(S::Dir, &'p OsStr)> {
        parent_of(self.destination, path)
    }

    fn check_parent(&self) -> Result<()> {
        let dest = &self.transfer.options.dest;
        let real = self.destination.resolve(Path::new(&clean_rooted(dest)))?;
        let parent = real.parent().unwrap_or(Path::new(""));
        if self.look_up(parent)?.is_none() {
            let message = format!("failed to stat {dest}: no such file or directory");
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(())
    }

    /// Returns what is at a real path of the destination.
    fn look_up(&self, path: &Path) -> Result<Option<FileType>> {
        match self.destination.type_at(path) {
            Ok(file_type) => Ok(Some(file_type)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => match error.io_source().map(std::io::Error::kind) {
                Some(std::io::ErrorKind::NotADirectory) => {
                    Err(not_a_directory(path.parent().unwrap_or(path)))
                }
                _ => Err(error),
            },
        }
    }
}

/// Returns the paths that a cleaned pattern matches, without those that lie in another one.
fn expand(tree: &Tree, pattern: &str, follow: bool) -> Result<Vec<PathBuf>> {
    let (prefix, rest) = split_wildcards(pattern);
    let glob = Glob::new(&rest)?;
    let Some(base) = tree.resolve(prefix.as_bytes(), follow)? else {
        return Ok(Vec::new());
    };
    let base_length = base.path_bytes().len();
    let depth = depth_of(&rest);
    let mut matches = Vec::new();
    let mut pending = vec![(base, 0)];
    while let Some((entry, level)) = pending.pop() {
        let below = &entry.path_bytes()[base_length..];
        let below = below.strip_prefix(b"/").unwrap_or(below);
        if level > 0 && glob.matches(below) {
            matches.push(entry.path().to_owned());
        } else if level < depth {
            let children = entry.children()?.into_iter().rev();
            pending.extend(children.map(|child| (child, level + 1)));
        }
    }
    Ok(matches)
}

/// Returns how deep the paths are that a pattern matches, at most.
pub(super) fn depth_of(pattern: &str) -> usize {
    // A class may match a `/`; nothing else makes a path deeper than its pattern.
    if pattern.contains('[') {
        usize::MAX
    } else {
        pattern.split('/').count()
    }
}

/// Returns the directory that a real path lies in, and its last name.
pub(super) fn parent_of<'p, S: Sink>(sink: &S, path: &'p Path) -> Result<(S::Dir, &'p OsStr)> {
    let name = path.file_name().ok_or_else(|| {
        let path = path.display();
        let message = format!("path `{path}` names no entry of a directory");
        Error::new(ErrorKind::InvalidInput, message)
    })?;
    Ok((sink.open_dir(path.parent().unwrap_or(Path::new("")))?, name))
}

/// Returns whether a path is written as that of a directory.
fn names_a_directory(path: &str) -> bool {
    path.is_empty() || path.ends_with('/') || path.ends_with("/.") || path == "."
}

fn find<'a>(tree: &'a Tree, path: &str, follow: bool) -> Result<Entry<'a>> {
    let found = tree.resolve(path.as_bytes(), follow)?;
    found.ok_or_else(|| not_found(path))
}

fn not_found(path: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{path:?}: not found"))
}

fn not_a_directory(path: &Path) -> Error {
    let message = format!("cannot copy to non-directory: {}", shown(path));
    Error::new(ErrorKind::InvalidInput, message)
}
