use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::block::{self, BLOCK_SIZE, Block, fits_octal};
use super::pax::{self, XATTR_PREFIX};
use super::{Header, Kind};
use crate::{Error, ErrorKind, Result};

/// Writes an archive, entry by entry.
///
/// An entry is written as plain ustar where that can hold it; else an extended header goes before
/// it with what doesn't fit, and nothing more. No user or group names are written. As [`Write`] it
/// takes the contents of the file whose header was appended last, exactly as many bytes as that
/// said.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    remaining: u64,
    padding: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive. Writes are small: give it a buffered stream.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            remaining: 0,
            padding: 0,
        }
    }

    /// Ends the entry before and begins the next one. Nanoseconds are dropped from its time.
    ///
    /// # Errors
    /// `InvalidInput` if the format can't hold the entry, or contents of the entry before are
    /// missing.
    pub fn append(&mut self, header: &Header) -> Result<()> {
        self.end_entry()?;
        let encoded = Encoded::new(header)?;
        self.write(&encoded.bytes)?;
        self.remaining = encoded.size;
        self.padding = block::padding(encoded.size);
        Ok(())
    }

    /// Returns the stream beneath. What is written to it by itself is not part of an entry.
    pub(crate) fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Ends the last entry; its padding is written.
    pub(crate) fn pad(&mut self) -> Result<()> {
        self.end_entry()
    }

    /// Ends the last entry, and leaves the archive open for others to add to.
    pub fn into_inner(mut self) -> Result<W> {
        self.end_entry()?;
        Ok(self.inner)
    }

    /// Ends the last entry and the archive, with two blocks of zeros.
    pub fn finish(mut self) -> Result<W> {
        self.end_entry()?;
        self.write(&[0; 2 * BLOCK_SIZE])?;
        Ok(self.inner)
    }

    fn end_entry(&mut self) -> Result<()> {
        if self.remaining > 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{} bytes of a tar entry's contents are missing",
                    self.remaining
                ),
            ));
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        self.write(&[0; BLOCK_SIZE][..padding])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner
            .write_all(bytes)
            .map_err(|error| Error::io("cannot write the archive", error))
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = bytes
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if wanted == 0 && !bytes.is_empty() {
            let message = "a tar entry's contents are longer than its header says";
            return Err(Error::new(ErrorKind::InvalidInput, message).into());
        }
        let count = self.inner.write(&bytes[..wanted])?;
        self.remaining -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The blocks of an entry's headers, and how many bytes of contents follow.
struct Encoded {
    bytes: Vec<u8>,
    size: u64,
}

impl Encoded {
    fn new(header: &Header) -> Result<Self> {
        let mut path = header.path.as_os_str().as_bytes().to_vec();
        if header.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let (flag, link, device) = match &header.kind {
            Kind::File => (b'0', None, (0, 0)),
            Kind::HardLink(target) => (b'1', Some(target), (0, 0)),
            Kind::Symlink(target) => (b'2', Some(target), (0, 0)),
            Kind::CharDevice(major, minor) => (b'3', None, (*major, *minor)),
            Kind::BlockDevice(major, minor) => (b'4', None, (*major, *minor)),
            Kind::Directory => (b'5', None, (0, 0)),
            Kind::Fifo => (b'6', None, (0, 0)),
        };
        let link = link.map_or(&[][..], |target| target.as_os_str().as_bytes());
        let size = if header.kind == Kind::File {
            header.size
        } else {
            0
        };
        let unencodable = |what: &str| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("tar cannot hold {what} of `{}`", header.path.display()),
            )
        };
        if path.contains(&0) || link.contains(&0) {
            return Err(unencodable("the name"));
        }
        let signed_size = i64::try_from(size).map_err(|_| unencodable("the size"))?;

        let mut records = BTreeMap::new();
        let split = split_path(&path);
        if !path.is_ascii() || (path.len() > block::NAME.len()) {
            records.insert(b"path".to_vec(), path.clone());
        }
        if !link.is_ascii() || link.len() > block::LINK_NAME.len() {
            records.insert(b"linkpath".to_vec(), link.to_vec());
        }
        let numbers = [
            ("uid", block::UID, i64::from(header.uid)),
            ("gid", block::GID, i64::from(header.gid)),
            ("size", block::SIZE, signed_size),
            ("mtime", block::MTIME, header.mtime.tv_sec),
        ];
        for (key, field, number) in &numbers {
            if !fits_octal(field, *number) {
                records.insert(key.as_bytes().to_vec(), number.to_string().into_bytes());
            }
        }
        for (name, value) in &header.xattrs {
            // The key of a record ends at the first `=`.
            if name.contains(&b'=') || name.contains(&0) {
                let name = String::from_utf8_lossy(name);
                return Err(unencodable(&format!("the attribute name `{name}`")));
            }
            records.insert([XATTR_PREFIX, name].concat(), value.clone());
        }
        // A split name needs no record, unless there are others anyway.
        let is_ustar = match records.len() {
            0 => true,
            1 => split.is_some() && records.contains_key(b"path".as_slice()),
            _ => false,
        };

        let mut main = Block::ZERO;
        match split {
            Some((prefix, name)) if is_ustar => {
                main.set_text(block::PREFIX, prefix);
                main.set_text(block::NAME, name);
            }
            _ => main.set_text(block::NAME, &ascii_only(&path)),
        }
        main.set_text(block::LINK_NAME, &ascii_only(link));
        main.set_number(block::MODE, i64::from(header.mode & 0o7777));
        for (_, field, number) in numbers {
            main.set_number(field, number);
        }
        for (field, number) in [(block::DEV_MAJOR, device.0), (block::DEV_MINOR, device.1)] {
            if !fits_octal(&field, i64::from(number)) {
                return Err(unencodable("the device number"));
            }
            main.set_number(field, i64::from(number));
        }
        main.set_type_flag(flag);
        main.seal();

        let mut bytes = Vec::with_capacity(BLOCK_SIZE);
        if !is_ustar {
            write_extended_header(&mut bytes, &path, &records);
        }
        bytes.extend_from_slice(&main.0);
        Ok(Self { bytes, size })
    }
}

fn write_extended_header(out: &mut Vec<u8>, path: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut data = Vec::new();
    for (key, value) in records {
        pax::write_record(&mut data, key, value);
    }
    let mut name = ascii_only(&extended_header_name(path));
    name.truncate(block::NAME.len());
    while name.ends_with(b"/") {
        name.pop();
    }
    let mut header = Block::ZERO;
    header.set_text(block::NAME, &name);
    for field in [block::MODE, block::UID, block::GID, block::MTIME] {
        header.set_number(field, 0);
    }
    header.set_number(block::SIZE, data.len() as i64);
    header.set_type_flag(b'x');
    header.seal();
    out.extend_from_slice(&header.0);
    out.extend_from_slice(&data);
    out.resize(out.len() + block::padding(data.len() as u64) as usize, 0);
}

/// Returns the name `PaxHeaders.0/file` in the file's directory.
fn extended_header_name(path: &[u8]) -> Vec<u8> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (dir, file) = path.split_at(slash.map_or(0, |slash| slash + 1));
    let name = [dir, b"PaxHeaders.0/", file].concat();
    let name = Path::new(std::ffi::OsStr::from_bytes(&name));
    // Collecting drops doubled and final slashes and inner dots.
    let clean: std::path::PathBuf = name.components().collect();
    clean.into_os_string().as_bytes().to_vec()
}

/// Splits a name that is too long for its field into prefix and name, as late as both fit.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= block::NAME.len() || !path.is_ascii() {
        return None;
    }
    let longest = block::PREFIX.len() + 1;
    let searched = if path.len() > longest {
        &path[..longest]
    } else {
        path.strip_suffix(b"/").unwrap_or(path)
    };
    let slash = searched.iter().rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    let fits = !prefix.is_empty() && !name.is_empty() && name.len() <= block::NAME.len();
    fits.then_some((prefix, name))
}

fn ascii_only(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}
