use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use crate::overlay::{LayerDir, Lower};

/// A directory that layers show together.
pub(super) struct Merged<'a> {
    lower: &'a Lower,
    path: PathBuf,
    /// It, as those layers have it of which something was looked at.
    opened: RefCell<HashMap<usize, LayerDir>>,
}

impl<'a> Merged<'a> {
    pub(super) fn root(lower: &'a Lower) -> Self {
        Self::at(lower, PathBuf::new())
    }

    fn at(lower: &'a Lower, path: PathBuf) -> Self {
        Self {
            lower,
            path,
            opened: RefCell::default(),
        }
    }

    /// Returns the directory under `name`.
    pub(super) fn enter(&self, name: &OsStr) -> Self {
        Self::at(self.lower, self.path.join(name))
    }

    /// Returns the names in it, in order.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = self.lower.names(&self.path)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Opens it in the layer whose entry is seen under `name`; `None` if there is none.
    pub(super) fn layer_of(&self, name: &OsStr) -> io::Result<Option<LayerDir>> {
        let Some(found) = self.lower.find(&self.path, name)? else {
            return Ok(None);
        };
        if let Some(dir) = self.opened.borrow().get(&found.layer) {
            return Ok(Some(dir.clone()));
        }
        let dir = self.lower.open_layer(found.layer, &self.path)?;
        let mut opened = self.opened.borrow_mut();
        Ok(Some(opened.entry(found.layer).or_insert(dir).clone()))
    }
}
