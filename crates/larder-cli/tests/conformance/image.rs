//! What an image holds, by another reader of layers than larder's.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use larder_testkit::OciArchive;

use super::entry::{Entry, Kind};

/// The files of an image by their paths, without a `/` at begin or end. The root has an empty path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree(BTreeMap<Vec<u8>, Node>);

#[derive(Debug, Clone, PartialEq)]
struct Node {
    /// The same for all names of one file.
    inode: usize,
    /// With the path of its first name.
    entry: Entry,
}

/// Reads the entries of each layer, the lowest first, in the order of the archive.
pub(crate) fn layers(archive: &OciArchive) -> Result<Vec<Vec<Entry>>> {
    archive
        .layer_tars()?
        .iter()
        .map(|tar| entries(tar))
        .collect()
}

fn entries(tar: &[u8]) -> Result<Vec<Entry>> {
    const XATTR: &str = "SCHILY.xattr.";
    let mut found = Vec::new();
    for read in tar::Archive::new(tar).entries()? {
        let mut read = read?;
        let mut xattrs = BTreeMap::new();
        let mut large = BTreeMap::new();
        if let Some(extensions) = read.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let (key, value) = (extension.key()?, extension.value_bytes());
                if let Some(name) = key.strip_prefix(XATTR) {
                    xattrs.insert(name.to_owned(), value.to_vec());
                } else if let Some(number) = whole_number(value) {
                    large.insert(key.to_owned(), number);
                }
            }
        }
        let target = read.link_name_bytes().map(std::borrow::Cow::into_owned);
        let target = || target.clone().context("a link without a target");
        let header = read.header();
        let device = || -> Result<(u32, u32)> {
            Ok((
                header.device_major()?.unwrap_or(0),
                header.device_minor()?.unwrap_or(0),
            ))
        };
        let mut kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Symlink => Kind::Symlink(target()?),
            tar::EntryType::Link => Kind::HardLink(target()?),
            tar::EntryType::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
            tar::EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            tar::EntryType::Fifo => Kind::Fifo,
            _ => Kind::File(Vec::new()),
        };
        let of_header = |value: std::io::Result<u64>| value.unwrap_or_default() as i64;
        let number = |key: &str, value| large.get(key).copied().unwrap_or(of_header(value));
        let owner = (
            number("uid", header.uid()) as u32,
            number("gid", header.gid()) as u32,
        );
        let mtime = number("mtime", header.mtime());
        let mode = header.mode()? & 0o7777;
        if let Kind::File(content) = &mut kind {
            read.read_to_end(content)?;
        }
        let path = read.path_bytes();
        found.push(Entry {
            path: path.strip_suffix(b"/").unwrap_or(&path).to_vec(),
            kind,
            mode,
            owner,
            mtime: Some(mtime),
            xattrs,
        });
    }
    Ok(found)
}

/// Reads a number of an extended header, without what is behind its point.
fn whole_number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, _) = text.split_once('.').unwrap_or((text, ""));
    whole.parse().ok()
}

impl Tree {
    /// Returns the tree that `layers` make, one upon the other.
    pub(crate) fn of(layers: &[Vec<Entry>]) -> Result<Self> {
        let mut tree = Self::default();
        let mut inodes = 0;
        for layer in layers {
            let below = tree.clone();
            for entry in layer {
                inodes += 1;
                tree.add(entry, inodes, &below)
                    .with_context(|| format!("in `{}`", entry.line()))?;
            }
        }
        Ok(tree)
    }

    fn add(&mut self, entry: &Entry, inode: usize, below: &Self) -> Result<()> {
        let path = &entry.path;
        let cut = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        let (dir, name) = path.split_at(cut);
        if name == b".wh..wh..opq" {
            for hidden in below
                .0
                .keys()
                .filter(|path| path.starts_with(dir) && path.len() > dir.len())
            {
                if self.0.get(hidden) == below.0.get(hidden) {
                    self.0.remove(hidden);
                }
            }
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            self.remove(&[dir, hidden].concat());
            return Ok(());
        }
        if entry.kind != Kind::Directory {
            self.remove(path);
        }
        let node = match &entry.kind {
            Kind::HardLink(target) => self
                .0
                .get(target)
                .context("its target is not there")?
                .clone(),
            _ => Node {
                inode,
                entry: entry.clone(),
            },
        };
        self.0.insert(path.clone(), node);
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) {
        self.0.retain(|known, _| {
            known != path && !(known.starts_with(path) && known.get(path.len()) == Some(&b'/'))
        });
    }

    /// Returns all entries below `dir`, itself not included, with paths relative to the root that
    /// begin with `/`. Of a file with several names all but the first are hard links.
    pub(crate) fn below(&self, dir: &str) -> Vec<Entry> {
        let dir = dir.trim_matches('/').as_bytes();
        let is_below = |path: &[u8]| {
            !path.is_empty()
                && (dir.is_empty() || (path.starts_with(dir) && path.get(dir.len()) == Some(&b'/')))
        };
        self.entries(|path, _| is_below(path))
    }

    /// Returns the entries that `base` has not, and those it has and this tree has not.
    pub(crate) fn changes_to(&self, base: &Self) -> Vec<Entry> {
        let is_new = |path: &[u8], node: &Node| {
            let known = base.0.get(path);
            !known.is_some_and(|known| {
                let mut known = known.entry.clone();
                known.mtime = node.entry.mtime;
                known.path.clone_from(&node.entry.path);
                known == node.entry
            })
        };
        let mut changes = self.entries(is_new);
        let is_gone = |path: &&Vec<u8>| {
            let parent = path
                .iter()
                .rposition(|byte| *byte == b'/')
                .map(|slash| &path[..slash]);
            !self.0.contains_key(*path) && parent.is_none_or(|parent| self.0.contains_key(parent))
        };
        let gone = base.0.keys().filter(is_gone);
        changes.extend(gone.map(|path| Entry::new(absolute(path), Kind::Gone)));
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }

    fn entries(&self, mut is_wanted: impl FnMut(&[u8], &Node) -> bool) -> Vec<Entry> {
        let mut firsts: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut found = Vec::new();
        for (path, node) in &self.0 {
            if !is_wanted(path, node) {
                continue;
            }
            let path = absolute(path);
            let mut entry = node.entry.clone();
            if let Some(first) = firsts.get(&node.inode) {
                entry.kind = Kind::HardLink(first.clone());
            } else {
                firsts.insert(node.inode, path.clone());
            }
            entry.path = path;
            found.push(entry);
        }
        found
    }
}

fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}
