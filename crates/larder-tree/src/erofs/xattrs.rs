use std::collections::HashMap;

use rustix::io::Errno;

use super::format::{MAX_NAME_BYTES, XATTR_HEADER_BYTES, XATTR_SPACES};
use crate::tar::Xattrs;

/// The most that the attributes of one inode may take; the format has room for a little more.
const MAX_BYTES: usize = 240 << 10;

/// What is longer is never shared.
const MAX_SHARED_BYTES: usize = 1024;

/// How many attributes are remembered, in case they come again.
const MAX_REMEMBERED: usize = 4096;

/// How many shared attributes one inode can have.
const MAX_REFERENCES: usize = u8::MAX as usize;

/// Attributes that several inodes have, which lie in the image but once.
#[derive(Debug, Default)]
pub(super) struct SharedXattrs {
    seen: HashMap<Vec<u8>, Seen>,
    area: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    /// With one inode, which holds it.
    Once,
    /// With several: its place in the area, in units of 4 bytes.
    Shared(u32),
}

/// Returns whether an inode with `xattrs` can get another attribute.
///
/// # Errors
/// `NOTSUP` for a name space that the file system hasn't, `TOOBIG` and `NOSPC` for a value, or
/// for attributes, that are too long.
pub(super) fn check(xattrs: &Xattrs, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let (_, rest) = split_name(name).ok_or(Errno::NOTSUP)?;
    if rest.len() > MAX_NAME_BYTES {
        return Err(Errno::RANGE);
    }
    if value.len() > usize::from(u16::MAX) {
        return Err(Errno::TOOBIG);
    }
    let others = xattrs.iter().filter(|(other, _)| *other != name);
    let taken: usize = others
        .map(|(name, value)| entry_length(name, value))
        .sum::<usize>();
    if taken + entry_length(name, value) > MAX_BYTES {
        return Err(Errno::NOSPC);
    }
    Ok(())
}

impl SharedXattrs {
    /// Returns attributes, all of which passed [`check`], as they follow an inode.
    pub(super) fn encode(&mut self, xattrs: &Xattrs) -> Vec<u8> {
        if xattrs.is_empty() {
            return Vec::new();
        }
        let mut shared = Vec::new();
        let mut own = Vec::new();
        for (name, value) in xattrs {
            let entry = encode_entry(name, value);
            match self.share(&entry) {
                Some(place) if shared.len() < MAX_REFERENCES => shared.push(place),
                _ => own.extend(entry),
            }
        }
        let mut bytes = vec![0; XATTR_HEADER_BYTES];
        bytes[4] = shared.len() as u8;
        bytes.extend(shared.into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(own);
        bytes
    }

    /// Returns all shared attributes.
    pub(super) fn area(&self) -> &[u8] {
        &self.area
    }

    /// Returns the place of an attribute that came before, in the area.
    fn share(&mut self, entry: &[u8]) -> Option<u32> {
        if entry.len() > MAX_SHARED_BYTES {
            return None;
        }
        match self.seen.get_mut(entry) {
            Some(Seen::Shared(place)) => Some(*place),
            Some(once @ Seen::Once) => {
                let place = (self.area.len() / 4) as u32;
                self.area.extend_from_slice(entry);
                *once = Seen::Shared(place);
                Some(place)
            }
            None => {
                if self.seen.len() < MAX_REMEMBERED {
                    self.seen.insert(entry.to_vec(), Seen::Once);
                }
                None
            }
        }
    }
}

fn encode_entry(name: &[u8], value: &[u8]) -> Vec<u8> {
    let (space, rest) = split_name(name).unwrap_or((0, name));
    let mut entry = Vec::with_capacity(entry_length(name, value));
    entry.push(rest.len() as u8);
    entry.push(space);
    entry.extend((value.len() as u16).to_le_bytes());
    entry.extend_from_slice(rest);
    entry.extend_from_slice(value);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}

/// Returns what an attribute takes at most.
fn entry_length(name: &[u8], value: &[u8]) -> usize {
    (4 + name.len() + value.len()).next_multiple_of(4)
}

/// Returns the number of a name's space, and the rest of the name.
fn split_name(name: &[u8]) -> Option<(u8, &[u8])> {
    XATTR_SPACES.iter().find_map(|(prefix, number)| {
        let rest = name.strip_prefix(*prefix)?;
        // The spaces of access lists hold but one name each, all of which is the prefix.
        (rest.is_empty() != prefix.ends_with(b".")).then_some((*number, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(pairs: &[(&str, &str)]) -> Xattrs {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn what_comes_again_is_shared() {
        let mut shared = SharedXattrs::default();
        let opaque = xattrs(&[("trusted.overlay.opaque", "y")]);
        let own = [&[0; 12][..], &[14, 4, 1, 0], b"overlay.opaquey\0"].concat();
        assert_eq!(shared.encode(&opaque), own);
        let reference = [&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[0; 4]].concat();
        for _ in 0..2 {
            assert_eq!(shared.encode(&opaque), reference);
        }
        assert_eq!(shared.area(), &own[12..]);
    }

    #[test]
    fn only_what_the_format_has_passes() {
        let check =
            |name: &str, length: usize| check(&Xattrs::new(), name.as_bytes(), &vec![0; length]);
        assert_eq!(check("user.a", 65_535), Ok(()));
        assert_eq!(check("user.a", 65_536), Err(Errno::TOOBIG));
        assert_eq!(check("user.", 1), Err(Errno::NOTSUP));
        assert_eq!(check("system.posix_acl_access", 1), Ok(()));
        assert_eq!(check("system.posix_acl_access2", 1), Err(Errno::NOTSUP));
        assert_eq!(check("com.apple.x", 1), Err(Errno::NOTSUP));
        assert_eq!(
            check(&format!("user.{}", "x".repeat(256)), 1),
            Err(Errno::RANGE)
        );
        let full: Xattrs = (0..4)
            .map(|n| (format!("user.{n}").into_bytes(), vec![0; 60_000]))
            .collect();
        assert_eq!(
            super::check(&full, b"user.4", &[0; 10_000]),
            Err(Errno::NOSPC)
        );
        assert_eq!(super::check(&full, b"user.3", &[0; 10_000]), Ok(()));
    }
}
