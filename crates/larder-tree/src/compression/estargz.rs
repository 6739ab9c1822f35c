//! Layers whose files can be read one by one: eStargz, a gzip of many members with an index.
//!
//! ```text
//! member  headers of entries, up to a file's contents
//! member  4 MiB of its contents, or the rest
//! ...
//! member  the tar entry `stargz.index.json`: where everything is; and the end of the tar
//! member  empty; its extra field tells where the one before begins
//! ```
//!
//! To all other readers it is a tar compressed with gzip, with one file more.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use base64::Engine as _;
use larder_oci::{Digest, Sha256};
use serde::Serialize;

use super::codec::{Codec, Compressor};
use crate::tar::{Header, Kind, Reader, Writer};
use crate::{Error, ErrorKind, Result};

/// The name of the index among the entries.
const INDEX_NAME: &str = "stargz.index.json";

/// Contents of files are cut into parts of so many bytes.
const PART_BYTES: usize = 4 << 20;

/// What [`write_estargz`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estargz {
    /// The digest of the index, `stargz.index.json`.
    pub index_digest: Digest,
    /// The digest of the uncompressed tar, which has one entry more than what was read.
    pub diff_id: Digest,
    /// The length of that tar.
    pub tar_bytes: u64,
}

/// Writes the entries of a tar as eStargz. `level` is zlib's, or `None` for a faster compressor.
///
/// # Errors
/// Those of reading the tar and of writing; `InvalidInput` for a name that is no UTF-8, which the
/// index can't hold.
pub fn write_estargz(mut tar: impl Read, out: impl Write, level: Option<u32>) -> Result<Estargz> {
    let failed = |error| Error::io("cannot start to compress", error);
    let members = Members {
        out,
        compressor: Compressor::new(Codec::gzip(level)?).map_err(failed)?,
        written: 0,
        pending: Vec::new(),
        diff_id: Sha256::new(),
        tar_bytes: 0,
    };
    let mut layer = Layer {
        tar: Writer::new(members),
        entries: Vec::new(),
        part: Vec::new(),
    };
    let mut reader = Reader::new(&mut tar);
    while let Some(header) = reader.next_entry()? {
        // An index of an earlier packing tells of another blob.
        if header.path.as_os_str() != INDEX_NAME {
            layer.append(&header, &mut reader.contents())?;
        }
    }
    // Whoever writes the tar may not be done with its end.
    io::copy(&mut tar, &mut io::sink())
        .map_err(|error| Error::io("cannot read the layer", error))?;
    layer.finish()
}

/// The index.
#[derive(Serialize)]
struct Index<'a> {
    version: u32,
    entries: &'a [IndexEntry],
}

/// An entry of the tar, or a further part of a file.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexEntry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    modified_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    /// Where the member with the contents begins.
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    /// Values are in base 64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

struct Layer<W: Write> {
    tar: Writer<Members<W>>,
    entries: Vec<IndexEntry>,
    part: Vec<u8>,
}

impl<W: Write> Layer<W> {
    fn append(&mut self, header: &Header, contents: &mut impl Read) -> Result<()> {
        let entry = index_entry(header)?;
        self.tar.append(header)?;
        let first = self.entries.len();
        self.entries.push(entry.clone());
        if entry.size == 0 {
            return Ok(());
        }
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < entry.size {
            self.part.clear();
            let read = contents
                .by_ref()
                .take(PART_BYTES as u64)
                .read_to_end(&mut self.part);
            read.map_err(|error| Error::io("cannot read the layer", error))?;
            if self.part.is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "the layer is cut short",
                ));
            }
            hasher.update(&self.part);
            let offset = self.tar.get_mut().end_member().map_err(write_failed)?;
            self.tar.write_all(&self.part).map_err(write_failed)?;
            let length = self.part.len() as u64;
            let part = IndexEntry {
                offset,
                chunk_offset: at,
                // The last part goes to the end of the file.
                chunk_size: if at + length < entry.size { length } else { 0 },
                chunk_digest: Some(Digest::sha256(&self.part)),
                ..IndexEntry::default()
            };
            self.add_part(first, part, at == 0);
            at += length;
        }
        self.entries[first].digest = Some(hasher.finish());
        Ok(())
    }

    /// Notes a part of the file whose entry is `first`; that has the first part's.
    fn add_part(&mut self, first: usize, part: IndexEntry, is_first: bool) {
        let file = &mut self.entries[first];
        if is_first {
            file.offset = part.offset;
            file.chunk_size = part.chunk_size;
            file.chunk_digest = part.chunk_digest;
            return;
        }
        let name = file.name.clone();
        self.entries.push(IndexEntry {
            name,
            kind: "chunk",
            ..part
        });
    }

    fn finish(mut self) -> Result<Estargz> {
        let index = Index {
            version: 1,
            entries: &self.entries,
        };
        let json = serde_json::to_vec(&index)
            .map_err(|error| Error::io("cannot write the layer's index", error))?;
        // The last entry's padding belongs to what is before the index.
        self.tar.pad()?;
        let offset = self.tar.get_mut().end_member().map_err(write_failed)?;
        self.tar
            .append(&Header::file(INDEX_NAME, json.len() as u64))?;
        self.tar.write_all(&json).map_err(write_failed)?;
        let mut members = self.tar.finish()?;
        members.end_member().map_err(write_failed)?;
        members
            .out
            .write_all(&footer(offset))
            .map_err(write_failed)?;
        Ok(Estargz {
            index_digest: Digest::sha256(&json),
            diff_id: members.diff_id.finish(),
            tar_bytes: members.tar_bytes,
        })
    }
}

/// The members as far as they are written, and what the next one will hold.
struct Members<W> {
    out: W,
    compressor: Compressor,
    written: u64,
    pending: Vec<u8>,
    diff_id: Sha256,
    tar_bytes: u64,
}

impl<W: Write> Members<W> {
    /// Writes what is pending as a member; returns where the next one begins.
    fn end_member(&mut self) -> io::Result<u64> {
        if !self.pending.is_empty() {
            let member = self.compressor.stream(&self.pending);
            self.out.write_all(&member)?;
            self.written += member.len() as u64;
            self.pending.clear();
        }
        Ok(self.written)
    }
}

impl<W: Write> Write for Members<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.diff_id.update(bytes);
        self.tar_bytes += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns the last member: an empty one, with the offset of the index as 16 hexadecimal digits.
fn footer(index_offset: u64) -> Vec<u8> {
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    // The extra field: its length, and one subfield `SG` with its length.
    footer.extend([26, 0, b'S', b'G', 22, 0]);
    footer.extend(format!("{index_offset:016x}STARGZ").as_bytes());
    // A stored last block without bytes; checksum and length of nothing.
    footer.extend([1, 0, 0, 0xff, 0xff]);
    footer.extend([0; 8]);
    footer
}

fn index_entry(header: &Header) -> Result<IndexEntry> {
    let name = text(header, header.path.as_os_str().as_bytes())?;
    let mut entry = IndexEntry {
        name,
        modified_at: timestamp(header.mtime.tv_sec),
        mode: u64::from(header.mode),
        uid: u64::from(header.uid),
        gid: u64::from(header.gid),
        ..IndexEntry::default()
    };
    for (name, value) in &header.xattrs {
        let value = base64::engine::general_purpose::STANDARD.encode(value);
        entry.xattrs.insert(text(header, name)?, value);
    }
    let mut device = |major: u32, minor: u32| {
        (entry.dev_major, entry.dev_minor) = (u64::from(major), u64::from(minor));
    };
    entry.kind = match &header.kind {
        Kind::File => {
            entry.size = header.size;
            "reg"
        }
        Kind::Directory => "dir",
        Kind::Symlink(target) => {
            entry.link_name = text(header, target.as_os_str().as_bytes())?;
            "symlink"
        }
        Kind::HardLink(target) => {
            entry.link_name = text(header, target.as_os_str().as_bytes())?;
            "hardlink"
        }
        Kind::CharDevice(major, minor) => {
            device(*major, *minor);
            "char"
        }
        Kind::BlockDevice(major, minor) => {
            device(*major, *minor);
            "block"
        }
        Kind::Fifo => "fifo",
    };
    Ok(entry)
}

fn text(header: &Header, bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        let path = header.path.display();
        let message = format!("estargz cannot hold `{path}`: a name is no UTF-8");
        Error::new(ErrorKind::InvalidInput, message)
    })
}

/// Returns a time as RFC 3339 has it, in UTC; one beyond the year 9999 as 1970.
fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .unwrap_or_default()
        .to_string()
}

fn write_failed(error: io::Error) -> Error {
    Error::io("cannot write compressed data", error)
}

#[cfg(test)]
mod tests {
    use flate2::read::{GzDecoder, MultiGzDecoder};
    use serde_json::Value;

    use super::*;

    /// A tar with a file of each kind that matters, one of them in three parts.
    fn sample() -> (Vec<u8>, Vec<u8>) {
        let big: Vec<u8> = (0..9_u32 << 20).map(|at| (at >> 7) as u8).collect();
        let mut tar = Writer::new(Vec::new());
        tar.append(&Header::directory("dir/")).unwrap();
        let mut file = Header::file("dir/small", 5);
        file.xattrs.insert(b"user.a".to_vec(), b"b".to_vec());
        tar.append(&file).unwrap();
        tar.write_all(b"hello").unwrap();
        tar.append(&Header::file("dir/empty", 0)).unwrap();
        let link = Kind::Symlink("small".into());
        tar.append(&Header::new("link", link, 0o777)).unwrap();
        tar.append(&Header::file("z-big", big.len() as u64))
            .unwrap();
        tar.write_all(&big).unwrap();
        (tar.finish().unwrap(), big)
    }

    fn pack(tar: &[u8]) -> (Vec<u8>, Estargz) {
        let mut blob = Vec::new();
        let made = write_estargz(tar, &mut blob, None).unwrap();
        (blob, made)
    }

    fn index(blob: &[u8]) -> Value {
        let footer = &blob[blob.len() - 51..];
        let offset = std::str::from_utf8(&footer[16..32]).unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        let mut reader = Reader::new(GzDecoder::new(&blob[offset..]));
        let header = reader.next_entry().unwrap().unwrap();
        assert_eq!(header.path.to_str(), Some(INDEX_NAME));
        serde_json::from_reader(reader.contents()).unwrap()
    }

    #[test]
    fn any_reader_of_gzip_and_tar_reads_it() {
        let (tar, big) = sample();
        let (blob, made) = pack(&tar);
        let mut plain = Vec::new();
        MultiGzDecoder::new(&blob[..])
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(Digest::sha256(&plain), made.diff_id);
        assert_eq!(plain.len() as u64, made.tar_bytes);
        let mut reader = Reader::new(&plain[..]);
        let mut names = Vec::new();
        while let Some(header) = reader.next_entry().unwrap() {
            let mut contents = Vec::new();
            reader.contents().read_to_end(&mut contents).unwrap();
            assert!(header.path.as_os_str() != "z-big" || contents == big);
            names.push(header.path.display().to_string());
        }
        assert_eq!(
            names,
            [
                "dir/",
                "dir/small",
                "dir/empty",
                "link",
                "z-big",
                INDEX_NAME
            ]
        );
        // Packed again, it is the same.
        assert!(pack(&plain) == (blob, made));
    }

    #[test]
    fn the_index_leads_to_each_part_of_each_file() {
        let (tar, big) = sample();
        let (blob, _) = pack(&tar);
        let index = index(&blob);
        assert_eq!(index["version"], 1);
        let entries = index["entries"].as_array().unwrap();
        let find = |name: &str| entries.iter().find(|e| e["name"] == name).unwrap();
        assert_eq!(find("dir/small")["xattrs"]["user.a"], "Yg==");
        assert_eq!(find("dir/small")["modtime"], "1970-01-01T00:00:00Z");
        assert_eq!(find("link")["linkName"], "small");
        assert_eq!(find("dir/empty").get("offset"), None);
        let mut whole = Vec::new();
        let parts: Vec<_> = entries.iter().filter(|e| e["name"] == "z-big").collect();
        assert_eq!(parts.len(), 3);
        for part in &parts {
            assert_eq!(
                part["chunkOffset"].as_u64().unwrap_or(0),
                whole.len() as u64
            );
            let offset = part["offset"].as_u64().unwrap() as usize;
            let rest = (big.len() - whole.len()) as u64;
            let length = part
                .get("chunkSize")
                .map_or(rest, |size| size.as_u64().unwrap());
            let mut bytes = Vec::new();
            let mut member = GzDecoder::new(&blob[offset..]).take(length);
            member.read_to_end(&mut bytes).unwrap();
            assert_eq!(part["chunkDigest"], Digest::sha256(&bytes).as_str());
            whole.extend(bytes);
        }
        assert!(whole == big);
        assert_eq!(parts[0]["digest"], Digest::sha256(&big).as_str());
    }
}
