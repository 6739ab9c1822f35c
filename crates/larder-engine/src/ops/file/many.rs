//! How much a copy will make: whether its layer is better an image.

use std::collections::VecDeque;

use larder_tree::context::{Entry, Kind, Tree};

use crate::error::Result;

/// From so many entries on an image costs less than a directory does. Below, both cost the same, and an image has to be
/// mounted by each build that uses it.
const MANY_ENTRIES: usize = 64;
/// From so many bytes on, an image is worth it because the next copy can use its blocks where they are.
const MANY_BYTES: u64 = 16 << 20;
/// An archive of so many bytes may hold as much.
const LARGE_ARCHIVE_BYTES: u64 = 64 << 10;

/// Returns whether a copy of `src` will make many entries, or much of them, as far as that can be told at once. Links are
/// not followed.
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

/// Returns whether many entries are in a tree, or many bytes.
pub(crate) fn has_many(top: Entry<'_>) -> Result<bool> {
    let mut count = 0;
    let mut size_bytes = 0_u64;
    let mut pending = VecDeque::from([top]);
    while let Some(entry) = pending.pop_front() {
        let attributes = entry.attributes();
        if attributes.kind == Kind::File {
            size_bytes = size_bytes.saturating_add(attributes.size);
        }
        if attributes.is_dir() {
            let children = entry.children()?;
            count += children.len();
            pending.extend(children);
        }
        if count >= MANY_ENTRIES || size_bytes >= MANY_BYTES {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use larder_tree::beneath::Root;
    use larder_tree::context::{ScanOptions, StatCache, scan};

    use super::*;

    #[test]
    fn much_is_many_entries_or_many_bytes() {
        let context = tempfile::tempdir().unwrap();
        let at = |name: &str| context.path().join(name);
        let make = |name: &str, size: u64| File::create(at(name)).unwrap().set_len(size).unwrap();
        for dir in ["few", "entries", "bytes"] {
            std::fs::create_dir_all(at(dir).join("inner")).unwrap();
        }
        for number in 0..40 {
            make(&format!("few/{number}"), 100);
            make(&format!("entries/{number}"), 0);
            make(&format!("entries/inner/{number}"), 0);
        }
        make("bytes/first", MANY_BYTES / 2);
        make("bytes/inner/second", MANY_BYTES / 2);
        make("large", MANY_BYTES);
        make("archive", LARGE_ARCHIVE_BYTES);
        let root = Root::open(context.path()).unwrap();
        let tree = scan(root, &ScanOptions::default(), StatCache::default()).unwrap();
        for (src, unpacks, expected) in [
            ("/", false, true),
            ("few", true, false),
            ("./entries/", false, true),
            ("bytes", false, true),
            ("bytes/inner", false, false),
            ("bytes/inner/second", false, false),
            ("large", false, true),
            ("archive", false, false),
            ("archive", true, true),
            ("missing/*", false, true),
        ] {
            let many = makes_many(&tree, src, unpacks).unwrap();
            assert_eq!(many, expected, "{src}, unpacked: {unpacks}");
        }
    }
}
