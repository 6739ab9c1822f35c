//! The file tree of a result: as one tar, or in a directory.

use std::io::Write;
use std::path::Path;

use larder_oci::{Mount, MountKind};
use larder_tree::beneath::Root;
use larder_tree::context::Tree;
use larder_tree::copy::{self, CopyOptions};
use larder_tree::diff::{LayerOptions, Style, write_layer};

use super::Export;
use crate::error::{BuildError, ErrorClass, Result};
use crate::ops::local::whole_tree;
use crate::output;
use crate::request::Destination;

impl Export<'_> {
    /// Writes the tree as one tar.
    pub(crate) fn to_tar(&self, destination: Destination) -> Result<()> {
        let mut vertex = self
            .reporter
            .begin_internal("exporting to client tarball", "tar");
        let status = vertex.status("sending tarball", 0);
        let options = LayerOptions {
            clamp_mtime: self.lowered.source_date_epoch,
        };
        let done = output::write(destination, |out: &mut dyn Write| {
            match self.open()? {
                Some(root) => write_layer(&root, None, Style::Tree, out, &options).map(|_| ())?,
                None => {
                    larder_tree::tar::Writer::new(out).finish()?;
                }
            }
            Ok(())
        });
        status.done();
        match &done {
            Ok(()) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        done
    }

    /// Copies the tree into a directory, which is made if absent. What is there stays, apart from
    /// files of the same names.
    pub(crate) fn to_directory(&self, directory: &Path) -> Result<()> {
        let mut vertex = self
            .reporter
            .begin_internal("exporting to client directory", "local");
        let status = vertex.status("copying files", 0);
        let done = self.copy_to(directory);
        status.done();
        match &done {
            Ok(()) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        done
    }

    fn copy_to(&self, directory: &Path) -> Result<()> {
        let failed = |source| {
            BuildError::new(
                ErrorClass::Invalid,
                format!("cannot make the directory `{}`", directory.display()),
            )
            .with_source(source)
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let Some(source) = self.open()? else {
            return Ok(());
        };
        let target = Root::open(directory)?;
        let owner = Some((
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        ));
        let options = CopyOptions {
            owner,
            ..whole_tree()
        };
        copy::copy(&Tree::view(source)?, &target, &options)?;
        Ok(())
    }

    /// Opens the tree for reading; `None` for an empty one.
    fn open(&self) -> Result<Option<Root>> {
        let Some(snapshot) = self.snapshot else {
            return Ok(None);
        };
        let mount: Mount = self.lease.store().view(snapshot)?;
        debug_assert!(matches!(
            mount.kind,
            MountKind::Bind { .. } | MountKind::Overlay { .. }
        ));
        Ok(Some(Root::from_fd(larder_exec::mount::open(&mount)?)))
    }
}
