use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::options::LayerForm;
use super::unpacker::{Parent, Unpacker, failed};
use crate::sink::Sink;
use crate::sink::operations::Place;
use crate::{Error, ErrorKind, Result};

const PREFIX: &[u8] = b".wh.";

/// Hides all that is beneath its directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// What aufs keeps for itself.
const FOREIGN_PREFIX: &[u8] = b".wh..wh.";

impl<S: Sink> Unpacker<'_, S> {
    /// Does what a whiteout says; returns false for a path that is none.
    pub(super) fn whiteout(&mut self, path: &Path) -> Result<bool> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let (Some(form), Some(victim)) = (self.form, name.strip_prefix(PREFIX)) else {
            return Ok(false);
        };
        if name == OPAQUE {
            let parent = self.parent_of(path)?;
            self.hide_all_beneath(form, &parent, path)?;
            return Ok(true);
        }
        if name.starts_with(FOREIGN_PREFIX) {
            return Ok(true);
        }
        if matches!(victim, b"" | b"." | b"..") {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("entry `{}` is a malformed whiteout", path.display()),
            ));
        }
        let victim = OsStr::from_bytes(victim);
        let parent = self.parent_of(path)?;
        match form {
            LayerForm::Tree => self.remove_victim(&parent, victim, path)?,
            LayerForm::Overlay | LayerForm::OverlayUser => {
                self.hide_victim(form, &parent, victim, path)?;
            }
        }
        Ok(true)
    }

    /// Makes overlayfs hide the directory's content beneath; in a plain tree, removes what the
    /// layer didn't bring.
    pub(super) fn hide_all_beneath(
        &mut self,
        form: LayerForm,
        dir: &Parent<S::Dir>,
        path: &Path,
    ) -> Result<()> {
        match form {
            LayerForm::Overlay => self.set_mark(&dir.dir, b"trusted.overlay.opaque"),
            LayerForm::OverlayUser => self.set_mark(&dir.dir, b"user.overlay.opaque"),
            LayerForm::Tree => {
                let result = self.remove_unplaced(&dir.dir, &dir.real);
                self.forget_unplaced(&dir.real);
                result
            }
        }
        .map_err(|errno| failed(path, errno))
    }

    pub(super) fn hide_victim(
        &mut self,
        form: LayerForm,
        parent: &Parent<S::Dir>,
        victim: &OsStr,
        path: &Path,
    ) -> Result<()> {
        match self.sink.type_of(&parent.dir, victim) {
            // The layer brings its own: only what is beneath that goes.
            Ok(FileType::Directory) => {
                let dir = self.sink.enter(&parent.dir, victim);
                let dir = dir.map_err(|errno| failed(path, errno))?;
                self.hide_all_beneath(form, &parent.with_dir(dir), path)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                self.sink
                    .make_special(&parent.dir, victim, FileType::CharacterDevice, 0)
                    .map_err(|errno| failed(path, errno))?;
                self.whiteouts.push(path.with_file_name(victim));
                Ok(())
            }
            Err(errno) => Err(failed(path, errno)),
        }
    }

    fn remove_victim(
        &mut self,
        parent: &Parent<S::Dir>,
        victim: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let real = parent.real.join(victim);
        let result = if self.placed.contains(&real) {
            match self.sink.enter(&parent.dir, victim) {
                Ok(dir) => self.remove_unplaced(&dir, &real),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(errno),
            }
        } else {
            self.sink.remove(&parent.dir, victim).map(drop)
        };
        self.forget_unplaced(&real);
        result.map_err(|errno| failed(path, errno))
    }

    /// Removes what is in a directory but didn't come from this layer.
    fn remove_unplaced(&self, dir: &S::Dir, real: &Path) -> Result<(), Errno> {
        for name in self.sink.names(dir)? {
            let child = real.join(&name);
            if !self.placed.contains(&child) {
                self.sink.remove(dir, &name)?;
                continue;
            }
            match self.sink.enter(dir, &name) {
                Ok(sub) => self.remove_unplaced(&sub, &child)?,
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn set_mark(&self, dir: &S::Dir, name: &[u8]) -> Result<(), Errno> {
        self.sink.set_xattr(Place::Dir(dir), name, b"y")
    }
}
