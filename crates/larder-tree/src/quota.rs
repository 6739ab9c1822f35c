//! Room on the disk, taken before it is written to.
//!
//! Whoever bounds a directory implements [`Quota`]; operations that fill one take what an entry
//! needs before they make it. What they take is an estimate from above: whole blocks, and a block
//! for what may need one.

use std::io;
use std::path::Path;

/// The unit in which most file systems allocate.
const BLOCK_BYTES: u64 = 4096;
/// Longer targets of symlinks, and larger extended attributes, may take a block of their own.
const INLINE_BYTES: usize = 59;

/// A bound on what an operation may write.
pub trait Quota: Sync {
    /// Takes `bytes` of disk, which are about to be written. They stay taken if the operation
    /// fails.
    ///
    /// # Errors
    /// Ends the operation, which passes the error on as the cause of its own.
    fn take(&self, bytes: u64) -> io::Result<()>;
}

/// No bound.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Quota for Unlimited {
    fn take(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Returns what `length` bytes in a file take.
pub fn content_bytes(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// Returns what the directories on the way to `path`, and one at it, take at most.
pub fn directories_bytes(path: &Path) -> u64 {
    path.components().count() as u64 * BLOCK_BYTES
}

/// Returns what a directory takes.
pub(crate) fn directory_bytes() -> u64 {
    BLOCK_BYTES
}

/// Returns what the target of a symlink takes.
pub(crate) fn link_bytes(target: &[u8]) -> u64 {
    inline_or_block(target.len())
}

/// Returns what extended attributes take.
pub(crate) fn xattrs_bytes<'a>(attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
    inline_or_block(
        attributes
            .map(|(name, value)| name.len() + value.len())
            .sum(),
    )
}

/// Returns what a name adds to its directory, whose blocks may be half empty.
pub(crate) fn name_bytes(length: usize) -> u64 {
    /// What a directory holds besides the name.
    const HEADER_BYTES: usize = 12;
    2 * (HEADER_BYTES + length) as u64
}

fn inline_or_block(length: usize) -> u64 {
    if length > INLINE_BYTES {
        content_bytes(length as u64)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_whole_blocks() {
        assert_eq!(content_bytes(0), 0);
        assert_eq!(content_bytes(1), 4096);
        assert_eq!(content_bytes(4096), 4096);
        assert_eq!(content_bytes(u64::MAX), u64::MAX);
        assert_eq!(link_bytes(b"short"), 0);
        assert_eq!(link_bytes(&[b'x'; 60]), 4096);
        assert_eq!(directories_bytes(Path::new("/a/b")), 3 * 4096);
    }
}
