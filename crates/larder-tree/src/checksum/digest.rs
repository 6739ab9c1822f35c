use std::collections::BTreeSet;

use larder_oci::{Digest, Sha256};

use super::select::{Item, Selection, Selector};
use crate::Result;
use crate::context::{Entry, Tree, compute_digests};

/// Returns the content key of what `selectors` cover: equal keys mean equal paths, attributes and
/// bytes. Without a selector, the whole tree is covered.
///
/// Files are read on all processors, as far as their digests are not known yet.
///
/// # Errors
/// `NotFound` for a path that doesn't exist (`"/a": not found`), `InvalidInput` for a malformed
/// pattern, `Changed` for a file that changed since it was listed, `Io` for one that can't be read.
pub fn content_digest(tree: &Tree, selectors: &[Selector]) -> Result<Digest> {
    let mut digests = Vec::new();
    for selector in normalize(selectors) {
        let sum = match selector.select(tree)? {
            Selection::Whole(entry) => whole_digest(&entry)?,
            Selection::List(items) => list_digest(&selector, &items)?,
        };
        digests.push(text(&sum));
    }
    Ok(Digest::sha256(digests.join(&0)))
}

/// Returns the selectors in the order in which their digests are joined, plain paths that are
/// named twice or lie beneath another one once.
pub(super) fn normalize(selectors: &[Selector]) -> Vec<Selector> {
    if selectors.is_empty() {
        return vec![Selector::default()];
    }
    let mut normalized = Vec::new();
    for follow_links in [false, true] {
        let plain = selectors
            .iter()
            .filter(|selector| !selector.is_filtered() && selector.follow_links == follow_links);
        let paths: BTreeSet<String> = plain.map(Selector::clean_path).collect();
        let is_covered = |path: &String| {
            let ends = path.match_indices('/').map(|(end, _)| end);
            ends.skip(1).any(|end| paths.contains(&path[..end]))
        };
        for path in paths.iter().filter(|path| !is_covered(path)) {
            normalized.push(Selector {
                path: path.clone(),
                follow_links,
                ..Selector::default()
            });
        }
    }
    let filtered = selectors.iter().filter(|selector| selector.is_filtered());
    normalized.extend(filtered.cloned());
    normalized.sort_by(|a, b| a.path.cmp(&b.path));
    normalized
}

/// Returns the digest of an entry with all beneath it.
fn whole_digest(entry: &Entry<'_>) -> Result<[u8; 32]> {
    let entries = entry.with_descendants()?;
    compute_digests(&entries)?;
    let mut open: Vec<(&Entry<'_>, Sha256)> = Vec::new();
    let mut result = [0; 32];
    for entry in &entries {
        while let Some((dir, _)) = open.last()
            && !entry.lies_in(dir)
        {
            close(&mut open);
        }
        if entry.attributes().is_dir() {
            let mut hasher = Sha256::new();
            add(&mut hasher, &[], &header_digest(entry)?);
            open.push((entry, hasher));
        } else if let Some((_, dir)) = open.last_mut() {
            add(dir, entry.name(), &header_digest(entry)?);
        } else {
            result = header_digest(entry)?;
        }
    }
    while !open.is_empty() {
        result = close(&mut open);
    }
    Ok(result)
}

/// Ends the innermost directory and adds it to the one around it.
fn close(open: &mut Vec<(&Entry<'_>, Sha256)>) -> [u8; 32] {
    let (entry, hasher) = open.pop().expect("there is an open directory");
    let digest = hasher.finish_bytes();
    if let Some((_, dir)) = open.last_mut() {
        add(dir, entry.name(), &digest);
    }
    digest
}

fn list_digest(selector: &Selector, items: &[Item<'_>]) -> Result<[u8; 32]> {
    let entries: Vec<Entry<'_>> = items.iter().map(|item| item.entry.clone()).collect();
    compute_digests(&entries)?;
    let digest = |item: &Item<'_>| match &item.target {
        Some(target) => whole_digest(target),
        None => header_digest(&item.entry),
    };
    if let [only] = items
        && last_name(&only.path) == last_name(selector.clean_path().as_bytes())
    {
        return digest(only);
    }
    let prefix_length = selector.prefix().len();
    let mut hasher = Sha256::new();
    for item in items {
        let path = &item.path[prefix_length..];
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let key: Vec<u8> = path
            .iter()
            .map(|&c| if c == b'/' { 0 } else { c })
            .collect();
        add(&mut hasher, &key, &digest(item)?);
    }
    Ok(hasher.finish_bytes())
}

/// Returns the digest of a file, or of a directory's header.
fn header_digest(entry: &Entry<'_>) -> Result<[u8; 32]> {
    if entry.is_context_top() {
        return Ok(Sha256::new().finish_bytes());
    }
    Ok(entry.digest()?.record)
}

fn add(hasher: &mut Sha256, key: &[u8], digest: &[u8; 32]) {
    hasher.update(b"\0");
    hasher.update(key);
    hasher.update(&text(digest));
}

/// Returns the text of a digest, `sha256:…`.
fn text(digest: &[u8; 32]) -> [u8; 71] {
    let mut text = [0; 71];
    let (algorithm, digits) = text.split_at_mut(7);
    algorithm.copy_from_slice(b"sha256:");
    hex::encode_to_slice(digest, digits).expect("64 digits for 32 bytes");
    text
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}
