use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::digest::normalize;
use super::select::{Selection, Selector};
use crate::context::{Entry, Kind, Tree, compute_digests};
use crate::{Error, ErrorKind, Result};

/// The version of the encoding: the first byte. Another version is refused, so that a record made
/// by another program is one without a manifest.
const VERSION: u8 = 1;

/// How many bytes of a digest are kept: enough to tell files apart that nobody forges.
const DIGEST_BYTES: usize = 16;

/// The kinds of entries by their numbers in the encoding.
const KINDS: [Kind; 7] = [
    Kind::File,
    Kind::Dir,
    Kind::Symlink,
    Kind::CharDevice,
    Kind::BlockDevice,
    Kind::Fifo,
    Kind::Socket,
];

/// What a content digest covers, entry by entry.
///
/// For explanations only: digests are shortened, and do not decide about the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// All paths, one behind the other.
    paths: Vec<u8>,
    /// In the order of the paths, each of which is there once.
    entries: Vec<Listed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listed {
    /// Where its path ends among all paths; it begins at the end of the one before.
    path_end: usize,
    record: Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    /// Over attributes and content.
    digest: [u8; DIGEST_BYTES],
    /// Over the content alone.
    content_crc: u32,
}

/// How one path differs between two manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path relative to the tree's topmost directory, which is the empty path. Bytes that are
    /// not text are replaced.
    pub path: String,
    /// What is different.
    pub change: Change,
}

/// What is different. Of several changes of one path the first in this list is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has the same content and attributes as a file that is gone.
    Renamed {
        /// The path of that file.
        from: String,
    },
    /// It is of another kind.
    Kind,
    /// A file's bytes or a symlink's target.
    Content,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// Extended attributes or device numbers.
    Attributes,
}

impl Manifest {
    /// Lists what `selectors` cover.
    ///
    /// # Errors
    /// Those of [`content_digest`](super::content_digest).
    pub fn of(tree: &Tree, selectors: &[Selector]) -> Result<Self> {
        let mut entries = Vec::new();
        for selector in normalize(selectors) {
            match selector.select(tree)? {
                Selection::Whole(entry) => entries.extend(entry.with_descendants()?),
                Selection::List(items) => {
                    for item in items {
                        match item.target {
                            Some(target) => entries.extend(target.with_descendants()?),
                            None => entries.push(item.entry),
                        }
                    }
                }
            }
        }
        entries.retain(|entry| !entry.is_context_top());
        compute_digests(&entries)?;
        entries.sort_by(|a, b| a.path_bytes().cmp(b.path_bytes()));
        entries.dedup_by(|a, b| a.path_bytes() == b.path_bytes());
        let mut manifest = Self::default();
        manifest.entries.reserve_exact(entries.len());
        for entry in &entries {
            manifest.push(entry.path_bytes(), Record::of(entry)?);
        }
        Ok(manifest)
    }

    /// Returns how many paths it lists.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether it lists nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns what has to be done to `old` to make it `new`, in the order of the paths.
    pub fn compare(old: &Self, new: &Self) -> Vec<Difference> {
        let (mut removed, mut added, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let (mut before, mut after) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some((before, _)), Some((after, _))) => before.cmp(after),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            match order {
                Ordering::Less => removed.extend(before.next()),
                Ordering::Greater => added.extend(after.next()),
                Ordering::Equal => {
                    let change = before.next().zip(after.next());
                    found.extend(change.and_then(|((path, before), (_, after))| {
                        Some((path, before.change_to(after)?))
                    }));
                }
            }
        }
        // Empty files are all alike, so they say nothing about names.
        let mut gone: HashMap<[u8; DIGEST_BYTES], Vec<&[u8]>> = HashMap::new();
        for (path, record) in removed.iter().rev() {
            if record.kind == Kind::File && record.size > 0 {
                gone.entry(record.digest).or_default().push(path);
            }
        }
        let mut renamed = HashSet::new();
        for (path, record) in added {
            let from = gone.get_mut(&record.digest).and_then(Vec::pop);
            renamed.extend(from);
            let renamed = from.map(|from| Change::Renamed { from: show(from) });
            found.push((path, renamed.unwrap_or(Change::Added)));
        }
        removed.retain(|(path, _)| !renamed.contains(path));
        found.extend(removed.into_iter().map(|(path, _)| (path, Change::Removed)));
        found.sort_by_key(|(path, _)| *path);
        let differences = found.into_iter().map(|(path, change)| Difference {
            path: show(path),
            change,
        });
        differences.collect()
    }

    /// Returns the compact form, to be compressed by the caller. Paths are written without what
    /// they share with the one before, numbers in as few bytes as they need.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut previous: &[u8] = &[];
        for (path, record) in self.iter() {
            let same = path.iter().zip(previous).take_while(|(a, b)| a == b);
            let shared = same.count();
            write_number(&mut out, shared as u64);
            write_number(&mut out, (path.len() - shared) as u64);
            out.extend_from_slice(&path[shared..]);
            let kind = KINDS.iter().position(|kind| *kind == record.kind);
            out.push(kind.expect("the table has all kinds") as u8);
            for number in [record.mode, record.uid, record.gid] {
                write_number(&mut out, number.into());
            }
            write_number(&mut out, record.size);
            out.extend_from_slice(&record.digest);
            out.extend_from_slice(&record.content_crc.to_le_bytes());
            previous = path;
        }
        out
    }

    /// Reads what [`Manifest::encode`] wrote.
    ///
    /// # Errors
    /// `Unsupported` for another version, `InvalidInput` for bytes that are none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((&VERSION, mut rest)) = bytes.split_first() else {
            let message = "manifest is not of version 1";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let malformed = || Error::new(ErrorKind::InvalidInput, "manifest is malformed");
        let mut manifest = Self::default();
        let mut path = Vec::new();
        while !rest.is_empty() {
            let record = read_entry(&mut rest, &mut path).ok_or_else(malformed)?;
            let last = manifest.entries.len().checked_sub(1);
            if last.is_some_and(|last| manifest.path(last) >= &*path) {
                return Err(malformed());
            }
            manifest.push(&path, record);
        }
        Ok(manifest)
    }

    /// Appends a path that comes after all others.
    fn push(&mut self, path: &[u8], record: Record) {
        self.paths.extend_from_slice(path);
        let path_end = self.paths.len();
        self.entries.push(Listed { path_end, record });
    }

    fn path(&self, index: usize) -> &[u8] {
        let before = index.checked_sub(1);
        let begin = before.map_or(0, |before| self.entries[before].path_end);
        &self.paths[begin..self.entries[index].path_end]
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &Record)> {
        let entries = self.entries.iter().enumerate();
        entries.map(|(index, listed)| (self.path(index), &listed.record))
    }
}

impl Record {
    fn of(entry: &Entry<'_>) -> Result<Self> {
        let digests = entry.digest()?;
        let attributes = entry.attributes();
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&digests.record[..DIGEST_BYTES]);
        Ok(Self {
            kind: attributes.kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            size: attributes.size,
            digest,
            content_crc: digests.content_crc,
        })
    }

    fn change_to(&self, new: &Self) -> Option<Change> {
        if self.kind != new.kind {
            Some(Change::Kind)
        } else if (self.size, self.content_crc) != (new.size, new.content_crc) {
            Some(Change::Content)
        } else if self.mode != new.mode {
            Some(Change::Mode)
        } else if (self.uid, self.gid) != (new.uid, new.gid) {
            Some(Change::Owner)
        } else if self.digest != new.digest {
            Some(Change::Attributes)
        } else {
            None
        }
    }
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Writes seven bits a byte, the lowest first.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_entry(rest: &mut &[u8], path: &mut Vec<u8>) -> Option<Record> {
    let shared = usize::try_from(read_number(rest)?).ok()?;
    let length = usize::try_from(read_number(rest)?).ok()?;
    if shared > path.len() {
        return None;
    }
    path.truncate(shared);
    path.extend_from_slice(rest.split_off(..length)?);
    let kind = usize::from(*rest.split_off_first()?);
    let mut small = || u32::try_from(read_number(rest)?).ok();
    let (mode, uid, gid) = (small()?, small()?, small()?);
    let size = read_number(rest)?;
    let digest = rest.split_off(..DIGEST_BYTES)?.try_into().ok()?;
    let content_crc = u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?);
    Some(Record {
        kind: *KINDS.get(kind)?,
        mode,
        uid,
        gid,
        size,
        digest,
        content_crc,
    })
}

fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
