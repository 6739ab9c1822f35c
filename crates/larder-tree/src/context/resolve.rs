use std::collections::VecDeque;

use super::attributes::Kind;
use super::tree::{Entry, Tree};
use crate::{Error, ErrorKind, Result};

/// How many symlinks a path may lead through, as in BuildKit.
const MAX_SYMLINKS: usize = 255;

impl Tree {
    /// Returns the entry that `path` leads to; symlinks are followed within the tree, as the last
    /// name only with `follow_last`. `None` if there is nothing.
    ///
    /// # Errors
    /// `InvalidInput` for a path through too many symlinks.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Option<Entry<'_>>> {
        let mut pending: VecDeque<Vec<u8>> = names(path).map(<[u8]>::to_vec).collect();
        // From a name that doesn't exist on, the way is followed as text.
        let mut reached: Vec<Option<Entry<'_>>> = vec![Some(self.top())];
        let mut symlinks = 0;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                reached.truncate((reached.len() - 1).max(1));
                continue;
            }
            let next = match reached.last() {
                Some(Some(current)) => current.child(&name)?,
                _ => None,
            };
            let link = next.as_ref().filter(|entry| {
                let is_last = pending.is_empty();
                entry.attributes().kind == Kind::Symlink && (follow_last || !is_last)
            });
            let Some(link) = link else {
                reached.push(next);
                continue;
            };
            symlinks += 1;
            if symlinks > MAX_SYMLINKS {
                let path = String::from_utf8_lossy(path);
                let message = format!("too many links in path `{path}`");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            let target = link.link_target();
            if target.starts_with(b"/") {
                reached.truncate(1);
            }
            for name in names(target).rev() {
                pending.push_front(name.to_vec());
            }
        }
        Ok(reached.pop().flatten())
    }
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".")
}
