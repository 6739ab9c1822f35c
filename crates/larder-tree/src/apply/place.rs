use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::name;
use super::options::{LayerForm, Ownership, Warning};
use super::unpacker::{DirEnd, Parent, Unpacker, failed};
use crate::beneath::remove_entry;
use crate::error::owner_failed;
use crate::quota;
use crate::tar::{Header, Kind, Reader};
use crate::xattr::{self, Attributes};
use crate::{Error, ErrorKind, Result};

/// How much of a file is written at once.
const COPY_BYTES: usize = 256 << 10;

impl Unpacker<'_> {
    /// Makes the entry at `path`, with its contents from the archive.
    pub(super) fn place(
        &mut self,
        path: &Path,
        header: &Header,
        archive: &mut Reader<impl Read>,
    ) -> Result<()> {
        let parent = self.parent_of(path)?;
        let name = path.file_name().unwrap_or_default();
        self.take(path, entry_bytes(name, header, archive))?;
        match &header.kind {
            Kind::File => self.place_file(&parent, name, path, header, archive)?,
            Kind::Directory => self.place_dir(&parent, name, path, header)?,
            Kind::Symlink(target) => {
                self.in_free_place(&parent, name, path, || {
                    fs::symlinkat(target, &*parent.fd, name)
                })?;
                self.finish_by_name(&parent, name, path, header)?;
            }
            Kind::HardLink(target) => self.place_link(&parent, name, path, target)?,
            Kind::Fifo => self.place_special(&parent, name, path, header, FileType::Fifo, 0)?,
            Kind::CharDevice(0, 0) if self.makes_overlay() => {
                self.options.warn(Warning::WhiteoutDevice, path);
            }
            Kind::CharDevice(major, minor) => {
                let (kind, device) = (FileType::CharacterDevice, fs::makedev(*major, *minor));
                self.place_special(&parent, name, path, header, kind, device)?;
            }
            Kind::BlockDevice(major, minor) => {
                let (kind, device) = (FileType::BlockDevice, fs::makedev(*major, *minor));
                self.place_special(&parent, name, path, header, kind, device)?;
            }
        }
        if self.form == Some(LayerForm::Tree) {
            let real = parent.real.join(name);
            let mut above = Some(real.as_path());
            while let Some(path) = above
                && self.placed.insert(path.to_owned())
            {
                above = path.parent();
            }
        }
        Ok(())
    }

    /// Returns the owner that an entry of `archived` owner gets; `None` leaves the process's.
    pub(super) fn owner(&self, archived: Option<(u32, u32)>) -> Option<(u32, u32)> {
        match self.options.ownership {
            Ownership::Preserve => archived,
            Ownership::Current => None,
            Ownership::Fixed(uid, gid) => Some((uid, gid)),
        }
    }

    /// Gives a directory that has no entry in the layer the attributes that it has beneath.
    pub(super) fn copy_lower_attributes(&mut self, path: &Path) -> Result<()> {
        let Some(lower) = self.options.lower else {
            return Ok(());
        };
        let below = match lower.open_dir(path) {
            Ok(below) => below,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // There is something else beneath, which this directory replaces.
            Err(error) if is_not_dir(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let read = || Ok((fs::fstat(&below)?, Attributes::read(&below)?));
        let (stat, attributes) = read().map_err(|errno| failed(path, errno))?;
        let ours = self.root.open_dir(path)?;
        let header = Header {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime(&stat),
            xattrs: attributes.kept,
            ..Header::new(path, Kind::Directory, stat.st_mode & 0o7777)
        };
        self.finish_open_dir(&ours, path, &header)
    }

    fn makes_overlay(&self) -> bool {
        matches!(self.form, Some(LayerForm::Overlay | LayerForm::OverlayUser))
    }

    /// Runs `make`, which makes an entry, after removing what is in its way.
    fn in_free_place<T>(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|errno| failed(path, errno)),
        }
        let stat = fs::statat(&*parent.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let remove = || remove_entry(&*parent.fd, name);
        if let Ok(stat) = stat
            && matches!(file_type(&stat), FileType::Directory | FileType::Symlink)
        {
            self.forget(path);
        }
        remove()
            .and_then(|_| make())
            .map_err(|errno| failed(path, errno))
    }

    fn place_file(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        header: &Header,
        archive: &mut Reader<impl Read>,
    ) -> Result<()> {
        let fd = self.in_free_place(parent, name, path, || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            fs::openat(
                &*parent.fd,
                name,
                flags | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )
        })?;
        let file = self.write_contents(File::from(fd), path, header, archive)?;
        self.restore_owner(&file, header)
            .map_err(|errno| owner_failed(path.display(), errno))?;
        self.restore_xattrs(&file, path, header)?;
        fs::fchmod(&file, Mode::from_raw_mode(header.mode))
            .and_then(|()| fs::futimens(&file, &times(header.mtime)))
            .map_err(|errno| failed(path, errno))
    }

    fn write_contents(
        &mut self,
        mut file: File,
        path: &Path,
        header: &Header,
        archive: &mut Reader<impl Read>,
    ) -> Result<File> {
        let write_failed = |error| Error::io(format!("cannot unpack `{}`", path.display()), error);
        let segments = archive.segments().to_vec();
        self.buffer.resize(COPY_BYTES, 0);
        let mut end = 0;
        for segment in segments {
            if segment.offset != end {
                file.seek(SeekFrom::Start(segment.offset))
                    .map_err(write_failed)?;
            }
            end = segment.offset + segment.length;
            let mut remaining = segment.length;
            while remaining > 0 {
                let wanted = remaining.min(COPY_BYTES as u64) as usize;
                let count = archive.read(&mut self.buffer[..wanted]).map_err(|error| {
                    Error::io(format!("cannot read `{}`", path.display()), error)
                })?;
                file.write_all(&self.buffer[..count])
                    .map_err(write_failed)?;
                remaining -= count as u64;
            }
        }
        if end != header.size {
            file.set_len(header.size).map_err(write_failed)?;
        }
        Ok(file)
    }

    fn place_dir(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        header: &Header,
    ) -> Result<()> {
        let make = || fs::mkdirat(&*parent.fd, name, Mode::RWXU);
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(&*parent.fd, name, flags, Mode::empty())
        };
        let mut replaces = false;
        let fd = match make().and_then(|()| open()) {
            Err(Errno::EXIST) => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    replaces = true;
                    self.in_free_place(parent, name, path, || make().and_then(|()| open()))?
                }
                opened => opened.map_err(|errno| failed(path, errno))?,
            },
            opened => opened.map_err(|errno| failed(path, errno))?,
        };
        self.finish_open_dir(&fd, path, header)?;
        let dir = self.enter(path, fd)?;
        // What it replaces, a whiteout or a file, had hidden a directory beneath for good.
        match self.form {
            Some(form) if replaces && self.makes_overlay() => {
                self.hide_all_beneath(form, &dir, path)
            }
            _ => Ok(()),
        }
    }

    fn finish_open_dir(&mut self, fd: &OwnedFd, path: &Path, header: &Header) -> Result<()> {
        self.restore_owner(fd, header)
            .map_err(|errno| owner_failed(path.display(), errno))?;
        self.restore_xattrs(fd, path, header)?;
        let usable = header.mode | 0o700;
        fs::fchmod(fd, Mode::from_raw_mode(usable)).map_err(|errno| failed(path, errno))?;
        let end = DirEnd {
            mtime: header.mtime,
            mode: (usable != header.mode).then_some(header.mode),
        };
        self.finish_dir_later(path, end);
        Ok(())
    }

    fn place_link(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        target: &Path,
    ) -> Result<()> {
        let context = || format!("hard link `{}`", path.display());
        let clean = name::clean(target).map_err(|error| error.within(context()))?;
        if clean == path {
            return Ok(());
        }
        let missing = || {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{} leads to `{}`, which is no file of the archive",
                    context(),
                    target.display()
                ),
            )
        };
        let (target_dir, target_name) = match self.root.parent_of(&clean) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                return Err(missing());
            }
            Err(error) => return Err(error.within(context())),
        };
        let is_file = fs::statat(&target_dir, &target_name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| file_type(&stat) != FileType::Directory);
        if !is_file {
            return Err(missing());
        }
        self.in_free_place(parent, name, path, || {
            fs::linkat(
                &target_dir,
                &target_name,
                &*parent.fd,
                name,
                AtFlags::empty(),
            )
        })
    }

    fn place_special(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        header: &Header,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        let made = self.in_free_place(parent, name, path, || {
            match fs::mknodat(&*parent.fd, name, kind, Mode::RUSR | Mode::WUSR, device) {
                Ok(()) => Ok(true),
                Err(Errno::PERM) if kind != FileType::Fifo => Ok(false),
                Err(errno) => Err(errno),
            }
        })?;
        if made {
            self.finish_by_name(parent, name, path, header)
        } else {
            self.options.warn(Warning::Device, path);
            Ok(())
        }
    }

    /// Restores what an entry has that isn't opened: a symlink, a pipe, a device.
    fn finish_by_name(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        header: &Header,
    ) -> Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((uid, gid)) = self.owner(Some((header.uid, header.gid))) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fs::chownat(&*parent.fd, name, uid, gid, nofollow)
                .map_err(|errno| owner_failed(path.display(), errno))?;
        }
        let finish = || {
            if !matches!(header.kind, Kind::Symlink(_)) {
                let mode = Mode::from_raw_mode(header.mode);
                fs::chmodat(&*parent.fd, name, mode, AtFlags::empty())?;
            }
            fs::utimensat(&*parent.fd, name, &times(header.mtime), nofollow)
        };
        finish().map_err(|errno| failed(path, errno))
    }

    fn restore_owner(&self, fd: impl AsFd, header: &Header) -> Result<(), Errno> {
        match self.owner(Some((header.uid, header.gid))) {
            Some((uid, gid)) => fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            None => Ok(()),
        }
    }

    /// Sets the attributes that belong to a layer. This comes after the owner, whose change drops
    /// capabilities.
    fn restore_xattrs(&mut self, fd: impl AsFd, path: &Path, header: &Header) -> Result<()> {
        for (name, value) in &header.xattrs {
            if !xattr::is_kept(name) {
                continue;
            }
            match fs::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP | Errno::PERM) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    self.options.warn(|path| Warning::Xattr(path, name), path);
                }
                Err(errno) => return Err(failed(path, errno)),
            }
        }
        Ok(())
    }
}

/// Returns what an entry takes on the disk.
fn entry_bytes(name: &OsStr, header: &Header, archive: &Reader<impl Read>) -> u64 {
    let content = match &header.kind {
        Kind::File => {
            let segments = archive.segments().iter();
            segments
                .map(|segment| quota::content_bytes(segment.length))
                .sum()
        }
        Kind::Directory => quota::directory_bytes(),
        Kind::Symlink(target) => quota::link_bytes(target.as_os_str().as_bytes()),
        _ => 0,
    };
    let xattrs = header.xattrs.iter();
    let xattrs = quota::xattrs_bytes(xattrs.map(|(name, value)| (&name[..], &value[..])));
    content + xattrs + quota::name_bytes(name.len())
}

fn is_not_dir(error: &Error) -> bool {
    let errno = error.io_source().and_then(Errno::from_io_error);
    errno == Some(Errno::NOTDIR)
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn mtime(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as i64,
    }
}

fn times(mtime: Timespec) -> Timestamps {
    Timestamps {
        last_access: mtime,
        last_modification: mtime,
    }
}
