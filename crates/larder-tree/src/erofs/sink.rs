use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Stat, Timespec};
use rustix::io::Errno;

use super::copied::CopiedFile;
use super::file::OpenFile;
use super::format::encode_device;
use super::image::{Image, time};
use super::past::{Past, PastContent};
use super::tree::{Attributes, DirId, Entry, NodeKind};
use super::xattrs;
use crate::Result;
use crate::beneath::{DirAttributes, failed};
use crate::copy::ContentCopier;
use crate::sink::operations::{Operations, Place};

/// The kernel's limit on the target of a symlink.
const MAX_TARGET_BYTES: usize = 4095;

impl Operations for Image {
    type Dir = DirId;
    type File = OpenFile;
    // The blocks of a file follow each other, and the same tree makes the same image.
    const IS_PARALLEL: bool = false;
    const SHARES_BLOCKS: bool = true;

    fn subtree(&self, dir: &DirId) -> Result<Self> {
        Ok(self.seen_from(*dir))
    }

    fn open_dir(&self, path: &Path) -> Result<DirId> {
        let found = self.parts().tree.open_dir(self.root, path);
        found.map_err(|errno| failed("open", path, errno))
    }

    fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let found = self.parts().tree.resolve(self.root, path);
        found.map_err(|errno| failed("resolve", path, errno))
    }

    fn type_at(&self, path: &Path) -> Result<FileType> {
        let found = self.parts().tree.type_at(self.root, path);
        found.map_err(|errno| failed("look up", path, errno))
    }

    fn create_dir_all(
        &self,
        path: &Path,
        attributes: DirAttributes,
    ) -> Result<(DirId, Vec<PathBuf>)> {
        let tree = &mut self.parts().tree;
        let mut create = || {
            let mut dir = self.root;
            let (mut at, mut created, mut ids) = (PathBuf::new(), Vec::new(), Vec::new());
            for name in &tree.resolve(self.root, path)? {
                at.push(name);
                match tree.enter(dir, name) {
                    Ok(next) => dir = next,
                    Err(Errno::NOENT) => {
                        tree.make_dir(dir, name)?;
                        dir = tree.enter(dir, name)?;
                        created.push(at.clone());
                        ids.push(dir);
                    }
                    Err(errno) => return Err(errno),
                }
            }
            for id in ids {
                let made = tree.dir_attributes(id)?;
                made.mode = attributes.mode & 0o7777;
                made.owner = attributes.owner.unwrap_or(made.owner);
                made.time = attributes.time.map_or(made.time, time);
            }
            Ok((dir, created))
        };
        create().map_err(|errno| failed("create the directory", path, errno))
    }

    fn type_of(&self, dir: &DirId, name: &OsStr) -> Result<FileType, Errno> {
        let tree = &mut self.parts().tree;
        let found = tree.find(*dir, name)?;
        tree.type_of(found).ok_or(Errno::NOENT)
    }

    fn enter(&self, dir: &DirId, name: &OsStr) -> Result<DirId, Errno> {
        self.parts().tree.enter(*dir, name)
    }

    fn names(&self, dir: &DirId) -> Result<Vec<OsString>, Errno> {
        self.parts().tree.names(*dir)
    }

    fn make_dir(&self, dir: &DirId, name: &OsStr) -> Result<(), Errno> {
        self.parts().tree.make_dir(*dir, name)
    }

    fn make_symlink(&self, dir: &DirId, name: &OsStr, target: &OsStr) -> Result<(), Errno> {
        match target.len() {
            0 => return Err(Errno::NOENT),
            1..=MAX_TARGET_BYTES => {}
            _ => return Err(Errno::NAMETOOLONG),
        }
        let kind = NodeKind::Symlink(target.as_bytes().into());
        self.parts().tree.make_node(*dir, name, kind, 0o777)
    }

    fn make_special(
        &self,
        dir: &DirId,
        name: &OsStr,
        file_type: FileType,
        device: u64,
    ) -> Result<(), Errno> {
        let tree = &mut self.parts().tree;
        if file_type == FileType::CharacterDevice && device == 0 {
            return tree.make_whiteout(*dir, name);
        }
        let device = encode_device(fs::major(device), fs::minor(device)).ok_or(Errno::INVAL)?;
        tree.make_node(*dir, name, NodeKind::Special(file_type, device), 0o600)
    }

    fn make_link(&self, original: (&DirId, &OsStr), name: (&DirId, &OsStr)) -> Result<(), Errno> {
        let tree = &mut self.parts().tree;
        tree.link((*original.0, original.1), (*name.0, name.1))
    }

    fn make_file(&self, dir: &DirId, name: &OsStr) -> Result<OpenFile, Errno> {
        let mut parts = self.parts();
        let mut attributes = parts.tree.new_file(*dir, name)?;
        attributes.mode = 0o600;
        if std::mem::replace(&mut parts.has_open_file, true) {
            return Err(Errno::BUSY);
        }
        Ok(OpenFile::new(*dir, name, attributes))
    }

    fn rename(&self, dir: &DirId, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        self.parts().tree.rename(*dir, from, to)
    }

    fn remove(&self, dir: &DirId, name: &OsStr) -> Result<bool, Errno> {
        self.parts().tree.remove(*dir, name)
    }

    fn write(&self, file: &mut OpenFile, bytes: &[u8]) -> Result<(), Errno> {
        file.write(bytes, &mut self.parts().writer.stream)
            .map_err(|error| errno(&error))
    }

    fn skip_to(&self, file: &mut OpenFile, offset: u64) -> Result<(), Errno> {
        file.skip_to(offset, &mut self.parts().writer.stream)
            .map_err(|error| errno(&error))
    }

    fn set_size(&self, file: &mut OpenFile, size: u64) -> Result<(), Errno> {
        self.skip_to(file, size)
    }

    fn copy_content(
        &self,
        _copier: &ContentCopier,
        source: BorrowedFd<'_>,
        stat: &Stat,
        file: &mut OpenFile,
    ) -> Result<u64, Errno> {
        file.copy(source, stat, &mut self.parts().writer.stream)
            .map_err(|error| errno(&error))
    }

    fn close(&self, file: OpenFile) -> Result<(), Errno> {
        let parts = &mut *self.parts();
        parts.has_open_file = false;
        let inode = file
            .place(&mut parts.writer)
            .map_err(|error| errno(&error))?;
        parts
            .tree
            .insert(file.dir, &file.name, Entry::File(inode))?;
        let size = file.size();
        if file.attributes.xattrs.is_empty()
            && let Some((path, source)) = file.source
        {
            let copied = CopiedFile {
                inode,
                source,
                size,
                device: file.device,
            };
            parts.copied.add(path, copied);
        }
        Ok(())
    }

    fn write_past(
        &self,
        file: &mut OpenFile,
        past: &Past,
        content: &PastContent,
    ) -> Result<(), Errno> {
        let writer = &mut self.parts().writer;
        let shared = past.shared(content);
        if let Some((device, block)) = shared.and_then(|blocks| writer.share(blocks)) {
            file.share(device, block, content.blocks_bytes);
            return Ok(());
        }
        let (offset, length) = (content.blocks_offset, content.blocks_bytes);
        file.copy_range(past.holder(content), offset, length, &mut writer.stream)
            .map_err(|error| errno(&error))
    }

    fn note_source(&self, file: &mut OpenFile, path: &Path, source: &[u8; 32]) {
        file.source = Some((path.to_owned(), *source));
    }

    fn set_owner(&self, entry: Place<'_, Self>, uid: u32, gid: u32) -> Result<(), Errno> {
        self.change(entry, |attributes| {
            attributes.owner = (uid, gid);
            Ok(())
        })
    }

    fn set_mode(&self, entry: Place<'_, Self>, mode: u32) -> Result<(), Errno> {
        self.change(entry, |attributes| {
            attributes.mode = mode & 0o7777;
            Ok(())
        })
    }

    fn set_time(&self, entry: Place<'_, Self>, new: Timespec) -> Result<(), Errno> {
        self.change(entry, |attributes| {
            attributes.time = time(new);
            Ok(())
        })
    }

    fn set_xattr(&self, entry: Place<'_, Self>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.change(entry, |attributes| {
            xattrs::check(&attributes.xattrs, name, value)?;
            attributes.xattrs.insert(name.to_vec(), value.to_vec());
            Ok(())
        })
    }
}

impl Image {
    fn change(
        &self,
        entry: Place<'_, Self>,
        change: impl FnOnce(&mut Attributes) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let tree = &mut self.parts().tree;
        match entry {
            Place::File(file) => change(&mut file.attributes),
            Place::Dir(dir) => change(tree.dir_attributes(*dir)?),
            Place::Entry(dir, name) => change(tree.attributes_of(*dir, name)?),
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
