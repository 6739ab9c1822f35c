use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::directory::{Attributes, is_opaque};
use super::index::{Found, check_name, is_whiteout};
use super::lower::{self, Lower};
use crate::Result;
use crate::beneath::{Root, read_names, remove_entry};
use crate::copy::ContentCopier;
use crate::sink::walk::{Seen, Walk};

/// Where overlayfs keeps its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// In `trusted.overlay.*`.
    Trusted,
    /// In `user.overlay.*`, as for mounts without privileges.
    User,
}

impl Marks {
    fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

/// A directory that holds what is changed in the tree of the layers beneath, as overlayfs's upper directory
/// does. Nobody else may write to it.
#[derive(Debug)]
pub struct Upper {
    shared: Arc<Shared>,
    /// The directory that paths begin at.
    base: UpperDir,
}

#[derive(Debug)]
struct Shared {
    lower: Lower,
    marks: Marks,
    /// Held while a directory of the layers beneath is made one of this: threads must not find it
    /// half made.
    copying: Mutex<()>,
}

/// A directory of the tree.
#[derive(Debug, Clone)]
pub struct UpperDir(Arc<Node>);

#[derive(Debug)]
struct Node {
    path: PathBuf,
    parent: Option<UpperDir>,
    /// Whether the entries of the layers beneath show in it.
    shows: bool,
    /// What was changed in it; nothing is as long as this is absent.
    own: OnceLock<Arc<OwnedFd>>,
}

/// What is seen under a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    Nothing,
    Own(FileType),
    Beneath(Found),
}

impl Entry {
    pub(crate) fn file_type(self) -> Option<FileType> {
        match self {
            Self::Nothing => None,
            Self::Own(file_type) => Some(file_type),
            Self::Beneath(found) => Some(found.file_type),
        }
    }
}

impl Upper {
    /// Takes the empty directory `own` as what is written upon `lower`.
    ///
    /// # Errors
    /// That `own` can't be opened for reading.
    pub fn new(own: &Root, lower: Lower, marks: Marks) -> Result<Self> {
        let own = Arc::new(own.open_dir("")?);
        Ok(Self {
            shared: Arc::new(Shared {
                lower,
                marks,
                copying: Mutex::default(),
            }),
            base: UpperDir(Arc::new(Node {
                path: PathBuf::new(),
                parent: None,
                shows: true,
                own: own.into(),
            })),
        })
    }

    /// Returns the directory that paths begin at.
    pub(crate) fn base(&self) -> &UpperDir {
        &self.base
    }

    /// Returns the same tree, seen from another directory.
    pub(crate) fn seen_from(&self, base: &UpperDir) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            base: base.clone(),
        }
    }

    /// Returns what is seen under `name`.
    pub(crate) fn find(&self, dir: &UpperDir, name: &OsStr) -> Result<Entry, Errno> {
        check_name(name)?;
        if let Some(own) = dir.own()? {
            match fs::statat(&own, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_whiteout(&stat) => return Ok(Entry::Nothing),
                Ok(stat) => return Ok(Entry::Own(FileType::from_raw_mode(stat.st_mode))),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(self
            .beneath(dir, name)?
            .map_or(Entry::Nothing, Entry::Beneath))
    }

    /// Returns what the layers beneath have under a name of a directory that shows it.
    fn beneath(&self, dir: &UpperDir, name: &OsStr) -> Result<Option<Found>, Errno> {
        if dir.0.shows {
            self.shared.lower.find(&dir.0.path, name)
        } else {
            Ok(None)
        }
    }

    /// Returns the directory under `name`, which is no symlink.
    pub(crate) fn enter(&self, dir: &UpperDir, name: &OsStr) -> Result<UpperDir, Errno> {
        let (shows, own) = match self.find(dir, name)? {
            Entry::Own(FileType::Directory) => {
                let own = lower::enter(dir.own()?.ok_or(Errno::NOENT)?, name)?;
                let beneath = self.beneath(dir, name)?;
                let is_merged = beneath.is_some_and(|it| it.file_type == FileType::Directory);
                (is_merged && !is_opaque(&own), Some(own))
            }
            Entry::Beneath(found) if found.file_type == FileType::Directory => (true, None),
            found => {
                return Err(match found.file_type() {
                    None => Errno::NOENT,
                    Some(FileType::Symlink) => Errno::LOOP,
                    Some(_) => Errno::NOTDIR,
                });
            }
        };
        Ok(UpperDir(Arc::new(Node {
            path: dir.0.path.join(name),
            parent: Some(dir.clone()),
            shows,
            own: own.map_or_else(OnceLock::new, |own| Arc::new(own).into()),
        })))
    }

    /// Returns the names that are seen in a directory, in no order.
    pub(crate) fn names(&self, dir: &UpperDir) -> Result<Vec<OsString>, Errno> {
        let mut names = Vec::new();
        let mut own_names = HashSet::new();
        if let Some(own) = dir.own()? {
            for name in read_names(&own)? {
                if !is_whiteout(&fs::statat(&own, &name, AtFlags::SYMLINK_NOFOLLOW)?) {
                    names.push(name.clone());
                }
                own_names.insert(name);
            }
        }
        if dir.0.shows {
            let beneath = self.shared.lower.names(&dir.0.path)?.into_iter();
            names.extend(beneath.filter(|name| !own_names.contains(name)));
        }
        Ok(names)
    }

    /// Makes an entry with `make`, under a name where nothing is seen.
    pub(crate) fn create<T>(
        &self,
        dir: &UpperDir,
        name: &OsStr,
        make: impl Fn(&Arc<OwnedFd>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if !matches!(self.find(dir, name)?, Entry::Nothing) {
            return Err(Errno::EXIST);
        }
        let own = self.own(dir)?;
        match make(&own) {
            // Nothing is seen, so this is a whiteout.
            Err(Errno::EXIST) => {
                fs::unlinkat(&own, name, AtFlags::empty())?;
                make(&own)
            }
            outcome => outcome,
        }
    }

    /// Makes a directory. One beneath that was removed must not shine through.
    pub(crate) fn make_dir(&self, dir: &UpperDir, name: &OsStr) -> Result<(), Errno> {
        self.create(dir, name, |own| fs::mkdirat(own, name, Mode::RWXU))?;
        let hides = self.beneath(dir, name)?;
        if hides.is_some_and(|it| it.file_type == FileType::Directory) {
            let made = lower::enter(self.own(dir)?, name)?;
            let mark = self.shared.marks.opaque();
            fs::fsetxattr(made, mark, b"y", XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Removes what is under `name`, with all beneath it; returns whether there was anything.
    pub(crate) fn remove(&self, dir: &UpperDir, name: &OsStr) -> Result<bool, Errno> {
        match self.find(dir, name)? {
            Entry::Nothing => return Ok(false),
            Entry::Own(_) => drop(remove_entry(self.own(dir)?, name)?),
            Entry::Beneath(_) => {}
        }
        self.hide(dir, name)?;
        Ok(true)
    }

    /// Hides what the layers beneath have under a name that is free in the directory itself.
    fn hide(&self, dir: &UpperDir, name: &OsStr) -> Result<(), Errno> {
        if self.beneath(dir, name)?.is_none() {
            return Ok(());
        }
        let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
        fs::mknodat(self.own(dir)?, name, kind, mode, 0)
    }

    /// Gives what is under `from`, and not beneath, another name, in place of what has that.
    pub(crate) fn rename(&self, dir: &UpperDir, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        if self.find(dir, to)?.file_type() == Some(FileType::Directory) {
            return Err(Errno::ISDIR);
        }
        let own = self.own(dir)?;
        fs::renameat(&own, from, &own, to)?;
        self.hide(dir, from)
    }

    /// Returns the directory and its entry, as one that may be changed: what is beneath is copied.
    pub(crate) fn changeable(&self, dir: &UpperDir, name: &OsStr) -> Result<Arc<OwnedFd>, Errno> {
        match self.find(dir, name)? {
            Entry::Nothing => return Err(Errno::NOENT),
            Entry::Own(_) => {}
            Entry::Beneath(found) if found.file_type == FileType::Directory => {
                self.own(&self.enter(dir, name)?)?;
            }
            Entry::Beneath(found) => self.copy_up(dir, name, found)?,
        }
        self.own(dir)
    }

    /// Copies what is no directory out of the layers beneath.
    fn copy_up(&self, dir: &UpperDir, name: &OsStr, found: Found) -> Result<(), Errno> {
        let own = self.own(dir)?;
        let _copying = self.copying();
        let times = times(&fs::fstat(&own)?);
        let from = self.shared.lower.open(found.layer, &dir.0.path)?;
        let stat = fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if found.file_type == FileType::RegularFile {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = fs::openat(&from, name, flags, Mode::empty())?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = fs::openat(&own, name, flags, Mode::RUSR | Mode::WUSR)?;
            ContentCopier::default().copy(source.as_fd(), &stat, target.as_fd())?;
            give_attributes(Attributes::of(&source, &stat)?, &target)?;
        } else {
            if found.file_type == FileType::Symlink {
                let target = fs::readlinkat(&from, name, Vec::new())?;
                fs::symlinkat(&target, &own, name)?;
            } else {
                let mode = Mode::RUSR | Mode::WUSR;
                fs::mknodat(&own, name, found.file_type, mode, stat.st_rdev)?;
            }
            let (uid, gid) = owner(&stat);
            fs::chownat(&own, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            if found.file_type != FileType::Symlink {
                let mode = Mode::from_raw_mode(stat.st_mode);
                fs::chmodat(&own, name, mode, AtFlags::empty())?;
            }
            fs::utimensat(&own, name, &self::times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        fs::futimens(&own, &times)
    }

    /// Returns a directory as one that may be changed: where it is beneath alone, an empty one is made with
    /// its attributes, and so are those that lead there.
    pub(crate) fn own(&self, dir: &UpperDir) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(own) = dir.own()? {
            return Ok(own);
        }
        let _copying = self.copying();
        self.own_locked(dir)
    }

    fn own_locked(&self, dir: &UpperDir) -> Result<Arc<OwnedFd>, Errno> {
        let mut missing = Vec::new();
        let mut at = dir;
        let mut above = loop {
            if let Some(own) = at.own()? {
                break own;
            }
            missing.push(at);
            at = at.0.parent.as_ref().ok_or(Errno::NOENT)?;
        };
        for dir in missing.into_iter().rev() {
            let name = dir.0.path.file_name().ok_or(Errno::NOENT)?;
            let from = self.shared.lower.attributes(&dir.0.path)?;
            let from = from.ok_or(Errno::NOENT)?;
            // That it is held here, too, is no change of the directory above.
            let times = times(&fs::fstat(&above)?);
            fs::mkdirat(&above, name, Mode::RWXU)?;
            let made = Arc::new(lower::enter(&above, name)?);
            give_attributes(from, &made)?;
            fs::futimens(&above, &times)?;
            above = Arc::clone(dir.0.own.get_or_init(|| made));
        }
        Ok(above)
    }

    fn copying(&self) -> MutexGuard<'_, ()> {
        self.shared
            .copying
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl UpperDir {
    /// Returns what was changed in it, if anything: another handle may have begun.
    fn own(&self) -> Result<Option<Arc<OwnedFd>>, Errno> {
        if let Some(own) = self.0.own.get() {
            return Ok(Some(Arc::clone(own)));
        }
        let (Some(parent), Some(name)) = (&self.0.parent, self.0.path.file_name()) else {
            return Ok(None);
        };
        let Some(above) = parent.own()? else {
            return Ok(None);
        };
        match lower::enter(above, name) {
            Ok(own) => Ok(Some(Arc::clone(self.0.own.get_or_init(|| Arc::new(own))))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl Walk for &Upper {
    type Dir = UpperDir;

    fn look(&mut self, dir: &UpperDir, name: &OsStr) -> Result<Seen<UpperDir>, Errno> {
        let found = self.find(dir, name)?;
        match (found.file_type(), found) {
            (None, _) => Ok(Seen::Nothing),
            (Some(FileType::Directory), _) => self.enter(dir, name).map(Seen::Dir),
            (Some(FileType::Symlink), Entry::Beneath(found)) => {
                let lower = &self.shared.lower;
                let target = lower.read_link(found.layer, &dir.0.path, name);
                target.map(Seen::Link)
            }
            (Some(FileType::Symlink), _) => {
                let own = dir.own()?.ok_or(Errno::NOENT)?;
                lower::read_link_at(&own, name).map(Seen::Link)
            }
            (Some(file_type), _) => Ok(Seen::Other(file_type)),
        }
    }
}

/// Gives `target` owner, mode, extended attributes and times, in the order in which the kernel undoes none.
fn give_attributes(attributes: Attributes, target: &OwnedFd) -> Result<(), Errno> {
    let (uid, gid) = attributes.owner;
    fs::fchown(target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    fs::fchmod(target, Mode::from_raw_mode(attributes.mode))?;
    for (name, value) in attributes.xattrs {
        match fs::fsetxattr(target, &name, &value, XattrFlags::empty()) {
            // What isn't ours to give is the host's, and no part of a layer.
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    let times = Timestamps {
        last_access: attributes.accessed_at,
        last_modification: attributes.modified_at,
    };
    fs::futimens(target, &times)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    (Some(uid), Some(gid))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}
