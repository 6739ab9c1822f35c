use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::Timespec;

use super::LayerOptions;
use super::node::Node;
use super::upper::Upper;
use crate::tar::{Header, Kind, Writer};
use crate::{Error, ErrorKind, Result};

/// What a whiteout's name begins with.
pub(crate) const WHITEOUT_PREFIX: &str = ".wh.";

/// How much of a file is read at once.
const COPY_BYTES: usize = 256 << 10;

/// Writes changes as the entries of a layer.
pub(super) struct LayerWriter<'a, W: Write> {
    tar: Writer<BufWriter<W>>,
    upper: Upper<'a>,
    options: &'a LayerOptions,
    /// Where the tree lies in the archive.
    within: &'a Path,
    entries: u64,
    /// Directories that have their entry.
    written_dirs: HashSet<PathBuf>,
    /// The first name written of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    /// Names of unchanged files, which become links should another name of the file be written.
    unchanged_links: HashMap<(u64, u64), Vec<PathBuf>>,
    buffer: Vec<u8>,
}

impl<'a, W: Write> LayerWriter<'a, W> {
    pub(super) fn new(out: W, upper: Upper<'a>, options: &'a LayerOptions) -> Self {
        Self {
            tar: Writer::new(BufWriter::with_capacity(COPY_BYTES, out)),
            upper,
            options,
            within: Path::new(""),
            entries: 0,
            written_dirs: HashSet::new(),
            links: HashMap::new(),
            unchanged_links: HashMap::new(),
            buffer: vec![0; COPY_BYTES],
        }
    }

    /// Writes the tree into a directory of the archive.
    pub(super) fn within(self, within: &'a Path) -> Self {
        Self { within, ..self }
    }

    /// Writes what is at `path` now.
    pub(super) fn entry(&mut self, path: &Path, node: &Node<'_>) -> Result<()> {
        let failed = |error| read_failed(path, error);
        let Some(mut header) = node.header(path.to_owned()).map_err(failed)? else {
            return Ok(());
        };
        let mut more_links = Vec::new();
        if let Some(id) = node.link_id() {
            if let Some(first) = self.links.get(&id) {
                header.kind = Kind::HardLink(first.clone());
            } else {
                self.links.insert(id, path.to_owned());
                more_links = self.unchanged_links.remove(&id).unwrap_or_default();
            }
        }
        self.append(&mut header)?;
        if header.kind == Kind::File {
            self.copy_contents(path, node, header.size)?;
        }
        if !more_links.is_empty() {
            header.kind = Kind::HardLink(path.to_owned());
            for link in more_links {
                header.path = link;
                self.append(&mut header)?;
            }
        }
        Ok(())
    }

    /// Takes note of an unchanged file that has several names.
    pub(super) fn unchanged(&mut self, path: &Path, node: &Node<'_>) -> Result<()> {
        match node.link_id() {
            Some(id) if self.links.contains_key(&id) => self.entry(path, node),
            Some(id) => {
                let links = self.unchanged_links.entry(id).or_default();
                links.push(path.to_owned());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Writes that what the lower tree has at `path` is gone.
    pub(super) fn whiteout(&mut self, path: &Path) -> Result<()> {
        let mut name = OsString::from(WHITEOUT_PREFIX);
        name.push(path.file_name().unwrap_or_default());
        let mut header = Header::file(path.with_file_name(name), 0);
        header.mode = 0;
        self.append(&mut header)
    }

    /// Ends the archive; returns the number of entries.
    pub(super) fn finish(self) -> Result<u64> {
        let failed = |error| Error::io("cannot write the layer", error);
        self.tar.finish()?.flush().map_err(failed)?;
        Ok(self.entries)
    }

    /// Leaves the archive open for others to add to.
    pub(super) fn leave(self) -> Result<()> {
        let failed = |error| Error::io("cannot write the archive", error);
        self.tar.into_inner()?.flush().map_err(failed)
    }

    /// Writes a header, after those of the directories above that have none yet.
    fn append(&mut self, header: &mut Header) -> Result<()> {
        self.write_parents(&header.path)?;
        if let Some(latest) = self.options.clamp_mtime
            && header.mtime.tv_sec >= latest
        {
            header.mtime = Timespec {
                tv_sec: latest,
                tv_nsec: 0,
            };
        }
        if header.kind == Kind::Directory {
            self.written_dirs.insert(header.path.clone());
        }
        self.entries += 1;
        if self.within.as_os_str().is_empty() {
            return self.tar.append(header);
        }
        let mut moved = header.clone();
        moved.path = self.within.join(&header.path);
        if let Kind::HardLink(target) = &mut moved.kind {
            *target = self.within.join(&target);
        }
        self.tar.append(&moved)
    }

    fn write_parents(&mut self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if parent.file_name().is_none() || self.written_dirs.contains(parent) {
            return Ok(());
        }
        match self.upper.header(parent)? {
            Some(mut header) => self.append(&mut header),
            None => Err(changed(parent)),
        }
    }

    fn copy_contents(&mut self, path: &Path, node: &Node<'_>, size: u64) -> Result<()> {
        let mut offset = 0;
        while offset < size {
            let wanted = (size - offset).min(self.buffer.len() as u64) as usize;
            let buffer = &mut self.buffer[..wanted];
            let count = node.read(offset, buffer);
            let count = count.map_err(|error| read_failed(path, error))?;
            if count == 0 {
                return Err(changed(path));
            }
            offset += count as u64;
            self.tar
                .write_all(&buffer[..count])
                .map_err(|error| Error::io("cannot write the layer", error))?;
        }
        Ok(())
    }
}

pub(super) fn read_failed(path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot read `{}`", path.display()), error)
}

fn changed(path: &Path) -> Error {
    Error::new(
        ErrorKind::Changed,
        format!("`{}` changed while it was read", path.display()),
    )
}
