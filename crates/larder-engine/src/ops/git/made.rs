//! What is made of a repository, and goes from where it was made into a snapshot.

use std::path::Path;

use larder_store::ActiveSnapshot;
use larder_tree::beneath::Root;
use larder_tree::context::Tree;
use larder_tree::copy::{self, CopyOptions};

use super::repository::Repository;
use crate::error::{BuildError, Result};

/// Where it is made, beside the bare repository.
const WORK: &str = "work";

/// A file or directory to be made.
pub(super) struct Made {
    pub(super) name: &'static str,
    /// Who may read it, whatever this process makes files like.
    pub(super) mode: &'static str,
}

impl Made {
    /// Lets `make` make it in a directory that is to be, and copies it from there into a snapshot.
    pub(super) fn copy(
        &self,
        repository: &Repository<'_>,
        (active, root): (&ActiveSnapshot, &Root),
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let work = repository.directory.join(WORK);
        // A build that was killed may have left it.
        let _ = fs_err::remove_dir_all(&work);
        let copied = make(&work).and_then(|()| {
            let failed = |error| {
                let message = format!("the mode of `{}` is wrong", self.name);
                BuildError::internal(message).with_source(error)
            };
            let path = format!("/{}", self.name);
            let options = CopyOptions {
                src: path.clone(),
                dest: path,
                mode: Some(self.mode.parse().map_err(failed)?),
                ..CopyOptions::default()
            };
            let tree = Tree::view(Root::open(&work)?)?;
            copy::copy_within(&tree, root, &options, active.quota())?;
            Ok(())
        });
        let _ = fs_err::remove_dir_all(&work);
        copied
    }
}
