use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Stat, Timespec, fstat, makedev};
use rustix::io::Errno;

use super::name;
use super::options::{LayerForm, Ownership, Warning};
use super::unpacker::{DirEnd, Parent, Unpacker, failed};
use crate::error::owner_failed;
use crate::quota;
use crate::sink::Sink;
use crate::sink::operations::Place;
use crate::tar::{Header, Kind, Reader, Segment};
use crate::xattr::{self, Attributes};
use crate::{Error, ErrorKind, Result};

/// How much of a file is written at once.
const COPY_BYTES: usize = 256 << 10;

/// What an entry holds: its runs of data, one after the other.
pub(super) trait Content: Read {
    /// Returns where the runs belong; between them are holes.
    fn segments(&self) -> &[Segment];
}

impl<R: Read> Content for Reader<R> {
    fn segments(&self) -> &[Segment] {
        Reader::segments(self)
    }
}

impl<S: Sink> Unpacker<'_, S> {
    /// Makes the entry at `path`, with its contents from the archive.
    pub(super) fn place(
        &mut self,
        path: &Path,
        header: &Header,
        archive: &mut impl Content,
    ) -> Result<()> {
        let parent = self.parent_of(path)?;
        let name = path.file_name().unwrap_or_default();
        self.take(path, entry_bytes(name, header, archive))?;
        match &header.kind {
            Kind::File => self.place_file(&parent, name, path, header, archive)?,
            Kind::Directory => self.place_dir(&parent, name, path, header)?,
            Kind::Symlink(target) => {
                self.in_free_place(&parent, name, path, || {
                    self.sink
                        .make_symlink(&parent.dir, name, target.as_os_str())
                })?;
                self.symlinks.insert(parent.real.join(name));
                self.finish_by_name(&parent, name, path, header)?;
            }
            Kind::HardLink(target) => self.place_link(&parent, name, path, target)?,
            Kind::Fifo => self.place_special(&parent, name, path, header, FileType::Fifo, 0)?,
            Kind::CharDevice(0, 0) if self.makes_overlay() => {
                self.options.warn(Warning::WhiteoutDevice, path);
            }
            Kind::CharDevice(major, minor) => {
                let (kind, device) = (FileType::CharacterDevice, makedev(*major, *minor));
                self.place_special(&parent, name, path, header, kind, device)?;
            }
            Kind::BlockDevice(major, minor) => {
                let (kind, device) = (FileType::BlockDevice, makedev(*major, *minor));
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
        let read = || Ok((fstat(&below)?, Attributes::read(&below)?));
        let (stat, attributes) = read().map_err(|errno| failed(path, errno))?;
        let ours = self.sink.open_dir(path)?;
        let header = Header {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime(&stat),
            xattrs: attributes.kept,
            ..Header::new(path, Kind::Directory, stat.st_mode & 0o7777)
        };
        let end = self.finish_open_dir(&ours, path, &header)?;
        self.finish_dir_later(path, end);
        Ok(())
    }

    fn makes_overlay(&self) -> bool {
        matches!(self.form, Some(LayerForm::Overlay | LayerForm::OverlayUser))
    }

    /// Runs `make`, which makes an entry, after removing what is in its way.
    fn in_free_place<T>(
        &mut self,
        parent: &Parent<S::Dir>,
        name: &OsStr,
        path: &Path,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|errno| failed(path, errno)),
        }
        let file_type = self.sink.type_of(&parent.dir, name);
        if let Ok(FileType::Directory | FileType::Symlink) = file_type {
            self.forget(&parent.real.join(name));
        }
        self.sink
            .remove(&parent.dir, name)
            .and_then(|_| make())
            .map_err(|errno| failed(path, errno))
    }

    fn place_file(
        &mut self,
        parent: &Parent<S::Dir>,
        name: &OsStr,
        path: &Path,
        header: &Header,
        archive: &mut impl Content,
    ) -> Result<()> {
        let sink = self.sink;
        let mut file =
            self.in_free_place(parent, name, path, || sink.make_file(&parent.dir, name))?;
        self.write_contents(&mut file, path, header, archive)?;
        self.restore_owner(Place::File(&mut file), header)
            .map_err(|errno| owner_failed(path.display(), errno))?;
        self.restore_xattrs(path, header, |name, value| {
            sink.set_xattr(Place::File(&mut file), name, value)
        })?;
        sink.set_mode(Place::File(&mut file), header.mode)
            .and_then(|()| sink.set_time(Place::File(&mut file), header.mtime))
            .and_then(|()| sink.close(file))
            .map_err(|errno| failed(path, errno))
    }

    fn write_contents(
        &mut self,
        file: &mut S::File,
        path: &Path,
        header: &Header,
        archive: &mut impl Content,
    ) -> Result<()> {
        let segments = archive.segments().to_vec();
        self.buffer.resize(COPY_BYTES, 0);
        let mut end = 0;
        for segment in segments {
            if segment.offset != end {
                self.sink
                    .skip_to(file, segment.offset)
                    .map_err(|errno| failed(path, errno))?;
            }
            end = segment.offset + segment.length;
            let mut remaining = segment.length;
            while remaining > 0 {
                let wanted = remaining.min(COPY_BYTES as u64) as usize;
                let count = archive.read(&mut self.buffer[..wanted]).map_err(|error| {
                    Error::io(format!("cannot read `{}`", path.display()), error)
                })?;
                self.sink
                    .write(file, &self.buffer[..count])
                    .map_err(|errno| failed(path, errno))?;
                remaining -= count as u64;
            }
        }
        if end != header.size {
            self.sink
                .set_size(file, header.size)
                .map_err(|errno| failed(path, errno))?;
        }
        Ok(())
    }

    fn place_dir(
        &mut self,
        parent: &Parent<S::Dir>,
        name: &OsStr,
        path: &Path,
        header: &Header,
    ) -> Result<()> {
        let sink = self.sink;
        let open = || sink.enter(&parent.dir, name);
        let make = || sink.make_dir(&parent.dir, name).and_then(|()| open());
        let mut replaces = false;
        let dir = match make() {
            Err(Errno::EXIST) => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    replaces = true;
                    self.in_free_place(parent, name, path, make)?
                }
                opened => opened.map_err(|errno| failed(path, errno))?,
            },
            opened => opened.map_err(|errno| failed(path, errno))?,
        };
        let end = self.finish_open_dir(&dir, path, header)?;
        self.finish_dir_later(&parent.real.join(name), end);
        let dir = self.enter(path, dir)?;
        // What it replaces, a whiteout or a file, had hidden a directory beneath for good.
        match self.form {
            Some(form) if replaces && self.makes_overlay() => {
                self.hide_all_beneath(form, &dir, path)
            }
            _ => Ok(()),
        }
    }

    /// Gives an open directory its attributes but for those that come at the end.
    pub(super) fn finish_open_dir(
        &mut self,
        dir: &S::Dir,
        path: &Path,
        header: &Header,
    ) -> Result<DirEnd> {
        let sink = self.sink;
        self.restore_owner(Place::Dir(dir), header)
            .map_err(|errno| owner_failed(path.display(), errno))?;
        self.restore_xattrs(path, header, |name, value| {
            sink.set_xattr(Place::Dir(dir), name, value)
        })?;
        let usable = header.mode | 0o700;
        sink.set_mode(Place::Dir(dir), usable)
            .map_err(|errno| failed(path, errno))?;
        Ok(DirEnd {
            mtime: header.mtime,
            mode: (usable != header.mode).then_some(header.mode),
        })
    }

    fn place_link(
        &mut self,
        parent: &Parent<S::Dir>,
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
        let (Some(target_dir), Some(target_name)) = (clean.parent(), clean.file_name()) else {
            return Err(missing());
        };
        let sink = self.sink;
        let target_dir = match sink.open_dir(target_dir) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(error.within(context())),
        };
        if !matches!(sink.type_of(&target_dir, target_name), Ok(found) if found != FileType::Directory)
        {
            return Err(missing());
        }
        self.in_free_place(parent, name, path, || {
            sink.make_link((&target_dir, target_name), (&parent.dir, name))
        })
    }

    fn place_special(
        &mut self,
        parent: &Parent<S::Dir>,
        name: &OsStr,
        path: &Path,
        header: &Header,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        let sink = self.sink;
        let made = self.in_free_place(parent, name, path, || {
            match sink.make_special(&parent.dir, name, kind, device) {
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
        parent: &Parent<S::Dir>,
        name: &OsStr,
        path: &Path,
        header: &Header,
    ) -> Result<()> {
        let entry = || Place::Entry(&parent.dir, name);
        self.restore_owner(entry(), header)
            .map_err(|errno| owner_failed(path.display(), errno))?;
        let finish = || {
            if !matches!(header.kind, Kind::Symlink(_)) {
                self.sink.set_mode(entry(), header.mode)?;
            }
            self.sink.set_time(entry(), header.mtime)
        };
        finish().map_err(|errno| failed(path, errno))
    }

    fn restore_owner(&self, entry: Place<'_, S>, header: &Header) -> Result<(), Errno> {
        match self.owner(Some((header.uid, header.gid))) {
            Some((uid, gid)) => self.sink.set_owner(entry, uid, gid),
            None => Ok(()),
        }
    }

    /// Sets the attributes that belong to a layer. This comes after the owner, whose change drops
    /// capabilities.
    fn restore_xattrs(
        &mut self,
        path: &Path,
        header: &Header,
        mut set: impl FnMut(&[u8], &[u8]) -> Result<(), Errno>,
    ) -> Result<()> {
        for (name, value) in &header.xattrs {
            if !xattr::is_kept(name) {
                continue;
            }
            match set(name, value) {
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
fn entry_bytes(name: &OsStr, header: &Header, archive: &impl Content) -> u64 {
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

fn mtime(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as i64,
    }
}
