//! How much a copy will make: whether its layer is better an image.

use std::collections::VecDeque;

use larder_tree::context::{Entry, Kind, Tree};

use crate::error::Result;

/// From so many entries on an image costs less than a directory does. Below, both cost the same, and an image has to be
/// mounted by each build that uses it.
const MANY_ENTRIES: usize = 64;
/// An archive of so many bytes may hold as much.
const LARGE_ARCHIVE_BYTES: u64 = 64 << 10;

/// Returns whether a copy of `src` will make many entries, as far as that can be told at once. Links are not
/// followed.
pub(super) fn makes_many(tree: &Tree, src: &str, unpacks: bool) -> Result<bool> {
    let mut entry = tree.top();
    let is_name = |part: &&str| !matches!(*part, "" | ".");
    for name in src.split('/').filter(is_name) {
        match entry.child(name.as_bytes())? {
            Some(child) => entry = child,
            // A pattern, most likely.
            None => break,
        }
    }
    let attributes = entry.attributes();
    if unpacks && attributes.kind == Kind::File && attributes.size >= LARGE_ARCHIVE_BYTES {
        return Ok(true);
    }
    has_many(entry)
}

/// Returns whether many entries are in a tree.
pub(crate) fn has_many(top: Entry<'_>) -> Result<bool> {
    let mut count = 0;
    let mut pending = VecDeque::from([top]);
    while let Some(entry) = pending.pop_front() {
        if !entry.attributes().is_dir() {
            continue;
        }
        let children = entry.children()?;
        count += children.len();
        if count >= MANY_ENTRIES {
            return Ok(true);
        }
        pending.extend(children);
    }
    Ok(false)
}
