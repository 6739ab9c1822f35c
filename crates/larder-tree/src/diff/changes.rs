use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::layer::{LayerWriter, read_failed};
use super::merged::Merged;
use super::node::{Dir, Node};
use super::upper::Upper;
use crate::beneath::Root;
use crate::overlay::Lower;
use crate::tar::{Header, Writer};
use crate::{Error, ErrorKind, Result};

/// How deep directories may be nested. Each level holds two of them open, which must fit into the
/// usual limit of 1024 open files.
const MAX_DEPTH: usize = 400;

/// What the tree that a layer is made of is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// An overlay's upper directory: it holds what changed, and overlayfs' marks.
    Overlay,
    /// A whole tree: what changed comes out by comparison with the lower tree.
    Tree,
}

/// Options of [`write_layer`].
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerOptions {
    /// Seconds since 1970: later times of entries are written as this.
    pub clamp_mtime: Option<i64>,
}

/// What [`write_layer`] wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerStats {
    /// Entries, whiteouts and leading directories included.
    pub entries: u64,
    /// Bytes of the uncompressed archive.
    pub size_bytes: u64,
}

/// Writes the changes that `upper` makes to the tree `lower` as an uncompressed layer.
///
/// `lower` is the merged view of all beneath, without `upper`; with none, everything in `upper`
/// is new. Both trees must be at rest.
///
/// # Errors
/// `Changed` if a file shrinks or vanishes meanwhile; `Unsupported` for marks of overlayfs that
/// have no counterpart in a layer; `LimitExceeded` for directories nested beyond 400 levels.
pub fn write_layer<'a>(
    upper: impl Into<Upper<'a>>,
    lower: Option<&Root>,
    style: Style,
    out: impl Write,
    options: &LayerOptions,
) -> Result<LayerStats> {
    let mut out = Counter {
        inner: out,
        count: 0,
    };
    let lower = lower.map(|lower| lower.open_dir("")).transpose()?;
    let lower = lower.as_ref().map(|lower| Dir::Open(lower.as_fd()));
    let entries = write_changes(upper.into(), lower, style, &mut out, options)?;
    Ok(LayerStats {
        entries,
        size_bytes: out.count,
    })
}

/// As [`write_layer`], upon layers that need not be mounted.
///
/// # Errors
/// As [`write_layer`].
pub fn write_layer_upon<'a>(
    upper: impl Into<Upper<'a>>,
    lower: &Lower,
    style: Style,
    out: impl Write,
    options: &LayerOptions,
) -> Result<()> {
    let lower = Merged::root(lower);
    write_changes(upper.into(), Some(Dir::Merged(&lower)), style, out, options).map(drop)
}

/// Writes whole trees as one uncompressed archive, each into the directory it comes with: one of no
/// name is the archive's root. `None` stands for an empty tree. All must be at rest. `further` files,
/// by their paths in the archive, come last.
///
/// # Errors
/// As [`write_layer`].
pub fn write_trees(
    trees: &[(PathBuf, Option<Root>)],
    further: &BTreeMap<PathBuf, Vec<u8>>,
    mut out: impl Write,
    options: &LayerOptions,
) -> Result<()> {
    for (directory, tree) in trees {
        if !directory.as_os_str().is_empty() {
            let mut header = Header::directory(directory);
            header.mtime.tv_sec = options.clamp_mtime.unwrap_or_default();
            let mut tar = Writer::new(&mut out);
            tar.append(&header)?;
            tar.into_inner()?;
        }
        if let Some(tree) = tree {
            let mut changes = Changes {
                layer: LayerWriter::new(&mut out, tree.into(), options).within(directory),
                path: PathBuf::new(),
                depth: 0,
                entered: HashSet::new(),
            };
            changes.tree_dir(Dir::Open(tree.open_dir("")?.as_fd()), None)?;
            changes.layer.leave()?;
        }
    }
    let mut tar = Writer::new(out);
    for (path, bytes) in further {
        let mut header = Header::file(path, bytes.len() as u64);
        header.mtime.tv_sec = options.clamp_mtime.unwrap_or_default();
        tar.append(&header)?;
        tar.write_all(bytes)
            .map_err(|error| Error::io("cannot write the archive", error))?;
    }
    tar.finish()?;
    Ok(())
}

fn write_changes(
    upper: Upper<'_>,
    lower: Option<Dir<'_>>,
    style: Style,
    out: impl Write,
    options: &LayerOptions,
) -> Result<u64> {
    let mut changes = Changes {
        layer: LayerWriter::new(out, upper, options),
        path: PathBuf::new(),
        depth: 0,
        entered: HashSet::new(),
    };
    upper.with_root(|upper| match style {
        Style::Overlay => changes.overlay_dir(upper, lower),
        Style::Tree => changes.tree_dir(upper, lower),
    })?;
    changes.layer.finish()
}

/// A walk over the changes, in the order of names within each directory.
struct Changes<'a, W: Write> {
    layer: LayerWriter<'a, W>,
    path: PathBuf,
    depth: usize,
    /// The directories of an image that were entered.
    entered: HashSet<u64>,
}

impl<W: Write> Changes<'_, W> {
    /// Takes what is in a directory of an overlay's upper layer as changes.
    fn overlay_dir(&mut self, upper: Dir<'_>, lower: Option<Dir<'_>>) -> Result<()> {
        self.enter(upper)?;
        for name in self.names(upper)? {
            self.path.push(&name);
            let node = self.find_existing(upper, &name)?;
            let below = match lower {
                Some(lower) => self.find(lower, &name)?,
                None => None,
            };
            self.overlay_entry(&node, below.as_deref())?;
            self.path.pop();
        }
        Ok(())
    }

    fn overlay_entry(&mut self, node: &Node<'_>, below: Option<&Node<'_>>) -> Result<()> {
        if self.check(node.is_whiteout())? {
            return match below {
                Some(_) => self.layer.whiteout(&self.path),
                None => Ok(()),
            };
        }
        self.refuse_foreign_marks(node)?;
        let is_same = match below {
            Some(below) => self.check(node.is_same_as(below))?,
            None => false,
        };
        if !is_same {
            self.layer.entry(&self.path, node)?;
        }
        if !node.is_dir() {
            return Ok(());
        }
        let dir = self.check(node.dir())?;
        let below = self.dir(below)?;
        let is_opaque = self.check(node.attributes())?.is_opaque();
        self.descend(|changes| {
            if is_opaque && below.is_some() {
                changes.tree_dir(dir, below)
            } else {
                changes.overlay_dir(dir, below)
            }
        })
    }

    /// Takes the differences between two directories as changes. The upper one may hold
    /// whiteouts, for an opaque directory needs none: they count as nothing there.
    fn tree_dir(&mut self, upper: Dir<'_>, lower: Option<Dir<'_>>) -> Result<()> {
        self.enter(upper)?;
        let ours = self.names(upper)?;
        let theirs = match lower {
            Some(lower) => self.names(lower)?,
            None => Vec::new(),
        };
        for name in merge(&ours, &theirs) {
            self.path.push(name);
            let mut node = self.find(upper, name)?;
            if let Some(found) = &node
                && self.check(found.is_whiteout())?
            {
                node = None;
            }
            let below = match lower {
                Some(lower) => self.find(lower, name)?,
                None => None,
            };
            match (&node, &below) {
                (Some(node), below) => self.tree_entry(node, below.as_deref())?,
                (None, Some(_)) => self.layer.whiteout(&self.path)?,
                (None, None) => {}
            }
            self.path.pop();
        }
        Ok(())
    }

    fn tree_entry(&mut self, node: &Node<'_>, below: Option<&Node<'_>>) -> Result<()> {
        let is_same = match below {
            Some(below) => self.check(node.is_same_as(below))?,
            None => false,
        };
        if is_same {
            self.layer.unchanged(&self.path, node)?;
        } else {
            self.layer.entry(&self.path, node)?;
        }
        if !node.is_dir() {
            return Ok(());
        }
        let dir = self.check(node.dir())?;
        let below = self.dir(below)?;
        self.descend(|changes| changes.tree_dir(dir, below))
    }

    fn descend(&mut self, walk: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("directories are nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.depth += 1;
        walk(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn refuse_foreign_marks(&self, node: &Node<'_>) -> Result<()> {
        let marks = &self.check(node.attributes())?.overlay;
        for feature in ["redirect", "metacopy"] {
            if marks.contains_key(feature.as_bytes()) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "`{}` was written with overlayfs' `{feature}` feature, which layers cannot hold",
                        self.path.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Takes note of a directory of an image: a damaged one may lie in itself, or in two places, over
    /// and over.
    fn enter(&mut self, dir: Dir<'_>) -> Result<()> {
        if let Dir::Listed(listing) = dir
            && !self.entered.insert(listing.number)
        {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "directory `{}` of an image has two names",
                    self.path.display()
                ),
            ));
        }
        Ok(())
    }

    fn dir<'n>(&self, node: Option<&'n Node<'_>>) -> Result<Option<Dir<'n>>> {
        match node {
            Some(node) if node.is_dir() => self.check(node.dir()).map(Some),
            _ => Ok(None),
        }
    }

    fn names(&self, dir: Dir<'_>) -> Result<Vec<OsString>> {
        self.check(dir.names())
    }

    fn find_existing<'n>(&self, dir: Dir<'n>, name: &'n OsStr) -> Result<Box<Node<'n>>> {
        self.find(dir, name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Changed,
                format!("`{}` vanished while it was read", self.path.display()),
            )
        })
    }

    fn find<'n>(&self, dir: Dir<'n>, name: &'n OsStr) -> Result<Option<Box<Node<'n>>>> {
        self.check(dir.find(name))
    }

    fn check<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|error| read_failed(&self.path, error))
    }
}

/// Returns the names of both sorted lists, each once, in order.
fn merge<'a>(ours: &'a [OsString], theirs: &'a [OsString]) -> impl Iterator<Item = &'a OsString> {
    let (mut ours, mut theirs) = (ours.iter().peekable(), theirs.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (ours.peek(), theirs.peek()) {
            (Some(our), Some(their)) => our.cmp(their),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => ours.next(),
            Ordering::Greater => theirs.next(),
            Ordering::Equal => {
                theirs.next();
                ours.next()
            }
        }
    })
}

struct Counter<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
