//! Files on disk and in archives, of the lines that tell them.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::entry::{Entry, Kind};

/// Reads the lines of a section.
pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Entry>> {
    lines
        .map(|line| Entry::parse(line).with_context(|| format!("in `{line}`")))
        .collect()
}

/// Writes `entries` below `dir`, which is made too, as files of `owner`. What is told as gone is
/// removed, and what is there already replaced.
pub(crate) fn write(dir: &Path, entries: &[Entry], owner: (u32, u32)) -> Result<()> {
    make_dir(dir, owner)?;
    for entry in entries {
        write_one(dir, entry, owner).with_context(|| format!("cannot write `{}`", entry.line()))?;
    }
    // What is written into a directory changes its time.
    for entry in entries {
        if let Some(mtime) = entry.mtime {
            set_mtime(&at(dir, &entry.path), mtime)?;
        }
    }
    Ok(())
}

fn at(dir: &Path, path: &[u8]) -> PathBuf {
    dir.join(std::ffi::OsStr::from_bytes(
        path.strip_prefix(b"/").unwrap_or(path),
    ))
}

fn make_dir(dir: &Path, owner: (u32, u32)) -> Result<()> {
    if !dir.exists() {
        if let Some(parent) = dir.parent() {
            make_dir(parent, owner)?;
        }
        fs::create_dir(dir)?;
        std::os::unix::fs::chown(dir, Some(owner.0), Some(owner.1))?;
        chmod(dir, 0o755)?;
    }
    Ok(())
}

fn chmod(path: &Path, mode: u32) -> Result<()> {
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}

fn write_one(dir: &Path, entry: &Entry, owner: (u32, u32)) -> Result<()> {
    let path = at(dir, &entry.path);
    if let Some(parent) = path.parent() {
        make_dir(parent, owner)?;
    }
    let is_same_dir = path.is_dir() && !path.is_symlink() && entry.kind == Kind::Directory;
    if path.is_dir() && !path.is_symlink() && !is_same_dir {
        fs::remove_dir_all(&path)?;
    } else if path.symlink_metadata().is_ok() && !is_same_dir {
        fs::remove_file(&path)?;
    }
    let mode = Mode::from_raw_mode(entry.mode);
    let node = |kind: FileType, (major, minor)| {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, &path, kind, mode, device)
    };
    match &entry.kind {
        Kind::File(content) => fs::write(&path, content)?,
        Kind::Size(size) => fs::File::create(&path)?.set_len(*size)?,
        Kind::Directory if is_same_dir => {}
        Kind::Directory => fs::create_dir(&path)?,
        Kind::Symlink(target) => {
            fs::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &path)?;
        }
        Kind::HardLink(target) => return Ok(fs::hard_link(at(dir, target), &path)?),
        Kind::Char(major, minor) => node(FileType::CharacterDevice, (*major, *minor))?,
        Kind::Block(major, minor) => node(FileType::BlockDevice, (*major, *minor))?,
        Kind::Fifo => node(FileType::Fifo, (0, 0))?,
        Kind::Gone => return Ok(()),
    }
    std::os::unix::fs::lchown(&path, Some(owner.0), Some(owner.1))?;
    if !matches!(entry.kind, Kind::Symlink(_)) {
        chmod(&path, entry.mode)?;
    }
    for (name, value) in &entry.xattrs {
        rustix::fs::lsetxattr(&path, name.as_str(), value, XattrFlags::empty())
            .with_context(|| format!("cannot set `{name}`"))?;
    }
    Ok(())
}

fn set_mtime(path: &Path, mtime: i64) -> Result<()> {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Returns `entries` as an archive, compressed as the ending of `name` says.
pub(crate) fn archive(name: &str, entries: &[Entry]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        append(&mut tar, entry)?;
    }
    let tar = tar.into_inner()?;
    let (_, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    Ok(match ending {
        "tar" => tar,
        "gz" | "tgz" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&tar)?;
            encoder.finish()?
        }
        "bz2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(&tar)?;
            encoder.finish()?
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(&tar)?;
            encoder.finish()?
        }
        "zst" => zstd::encode_all(&tar[..], 1)?,
        _ => bail!("`{ending}` is the ending of no archive"),
    })
}

fn append(tar: &mut tar::Builder<Vec<u8>>, entry: &Entry) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.0.into());
    header.set_gid(entry.owner.1.into());
    header.set_mtime(entry.mtime.unwrap_or(0).try_into()?);
    header.set_size(0);
    let (kind, target, device, content) = match &entry.kind {
        Kind::File(content) => (tar::EntryType::Regular, None, None, content.clone()),
        Kind::Size(size) => (tar::EntryType::Regular, None, None, vec![0; *size as usize]),
        Kind::Directory => (tar::EntryType::Directory, None, None, Vec::new()),
        Kind::Symlink(target) => (tar::EntryType::Symlink, Some(target), None, Vec::new()),
        Kind::HardLink(target) => (tar::EntryType::Link, Some(target), None, Vec::new()),
        Kind::Char(major, minor) => (
            tar::EntryType::Char,
            None,
            Some((*major, *minor)),
            Vec::new(),
        ),
        Kind::Block(major, minor) => (
            tar::EntryType::Block,
            None,
            Some((*major, *minor)),
            Vec::new(),
        ),
        Kind::Fifo => (tar::EntryType::Fifo, None, None, Vec::new()),
        Kind::Gone => bail!("an archive holds nothing that is gone"),
    };
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    if let Some((major, minor)) = device {
        header.set_device_major(major)?;
        header.set_device_minor(minor)?;
    }
    let names: Vec<(String, &[u8])> = entry
        .xattrs
        .iter()
        .map(|(name, value)| (format!("SCHILY.xattr.{name}"), &value[..]))
        .collect();
    if !names.is_empty() {
        tar.append_pax_extensions(names.iter().map(|(name, value)| (name.as_str(), *value)))?;
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
    match target {
        Some(target) => {
            let target = Path::new(std::ffi::OsStr::from_bytes(target));
            tar.append_link(&mut header, path, target)?;
        }
        None => tar.append_data(&mut header, path, &content[..])?,
    }
    Ok(())
}
