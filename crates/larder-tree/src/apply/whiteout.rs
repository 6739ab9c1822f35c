use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::options::LayerForm;
use super::unpacker::{Parent, Unpacker, failed};
use crate::beneath::{read_names, remove_entry};
use crate::{Error, ErrorKind, Result};

const PREFIX: &[u8] = b".wh.";

/// Hides all that is beneath its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What aufs keeps for itself.
const FOREIGN_PREFIX: &[u8] = b".wh..wh.";

impl Unpacker<'_> {
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
        dir: &Parent,
        path: &Path,
    ) -> Result<()> {
        match form {
            LayerForm::Overlay => set_mark(&dir.fd, "trusted.overlay.opaque"),
            LayerForm::OverlayUser => set_mark(&dir.fd, "user.overlay.opaque"),
            LayerForm::Tree => {
                let result = self.remove_unplaced(&dir.fd, &dir.real);
                self.forget(path.parent().unwrap_or(Path::new("")));
                result
            }
        }
        .map_err(|errno| failed(path, errno))
    }

    fn hide_victim(
        &mut self,
        form: LayerForm,
        parent: &Parent,
        victim: &OsStr,
        path: &Path,
    ) -> Result<()> {
        match fs::statat(&*parent.fd, victim, AtFlags::SYMLINK_NOFOLLOW) {
            // The layer brings its own: only what is beneath that goes.
            Ok(stat) => {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let fd = open_dir(&*parent.fd, victim).map_err(|e| failed(path, e))?;
                    let dir = parent.with_fd(fd);
                    self.hide_all_beneath(form, &dir, path)?;
                }
                Ok(())
            }
            Err(Errno::NOENT) => {
                let kind = FileType::CharacterDevice;
                fs::mknodat(&*parent.fd, victim, kind, Mode::empty(), 0)
                    .map_err(|errno| failed(path, errno))?;
                self.whiteouts.push(path.with_file_name(victim));
                Ok(())
            }
            Err(errno) => Err(failed(path, errno)),
        }
    }

    fn remove_victim(&mut self, parent: &Parent, victim: &OsStr, path: &Path) -> Result<()> {
        let real = parent.real.join(victim);
        let result = if self.placed.contains(&real) {
            match open_dir(&*parent.fd, victim) {
                Ok(dir) => self.remove_unplaced(&dir, &real),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(errno),
            }
        } else {
            remove_entry(&*parent.fd, victim).map(|_| ())
        };
        self.forget(&path.with_file_name(victim));
        result.map_err(|errno| failed(path, errno))
    }

    /// Removes what is in a directory but didn't come from this layer.
    fn remove_unplaced(&self, dir: &OwnedFd, real: &Path) -> Result<(), Errno> {
        for name in read_names(dir)? {
            let child = real.join(&name);
            if !self.placed.contains(&child) {
                remove_entry(dir, &name)?;
                continue;
            }
            match open_dir(dir, &name) {
                Ok(sub) => self.remove_unplaced(&sub, &child)?,
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn set_mark(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    fs::fsetxattr(dir, name, b"y", XattrFlags::empty())
}

fn open_dir(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}
