use larder_oci::Sha256;

use super::attributes::{Attributes, Kind, Xattrs};

/// The digest of one entry, as BuildKit's `contenthash` defines it, and a checksum of its content
/// alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileDigest {
    /// SHA-256 over the header and the content; of a directory over its header.
    pub(crate) record: [u8; 32],
    /// CRC-32 of a file's bytes or a symlink's target: tells changes of content from those of
    /// attributes. Never decides about the cache.
    pub(crate) content_crc: u32,
}

/// A running computation of a [`FileDigest`].
///
/// The header is the text of a tar header's fields, each after its name, without a separator:
///
/// | in the digest | not in the digest |
/// | --- | --- |
/// | mode bits, uid, gid, size, type, symlink target, device numbers | path (the directory's digest has it) |
/// | counted extended attributes, in the order of their names | time of modification, names of owner and group |
/// | the bytes of a file | identity of hard links |
pub(crate) struct RecordHasher {
    sha256: Sha256,
    content_crc: crc32fast::Hasher,
}

impl RecordHasher {
    /// Starts with the header. `link_target` is that of a symlink, else empty.
    pub(crate) fn new(attributes: &Attributes, link_target: &[u8], xattrs: &Xattrs) -> Self {
        let mut header = Vec::with_capacity(160);
        let Attributes {
            mode,
            uid,
            gid,
            size,
            device: (major, minor),
            ..
        } = attributes;
        // A tar header has no type for sockets; BuildKit takes them for files.
        let type_flag = match attributes.kind {
            Kind::File | Kind::Socket => 0,
            Kind::Symlink => 2,
            Kind::CharDevice => 3,
            Kind::BlockDevice => 4,
            Kind::Dir => 5,
            Kind::Fifo => 6,
        };
        push_field(&mut header, b"namemode", (*mode).into());
        push_field(&mut header, b"uid", (*uid).into());
        push_field(&mut header, b"gid", (*gid).into());
        push_field(&mut header, b"size", *size);
        push_field(&mut header, b"typeflag", type_flag);
        header.extend_from_slice(b"linkname");
        header.extend_from_slice(link_target);
        push_field(&mut header, b"unamegnamedevmajor", (*major).into());
        push_field(&mut header, b"devminor", (*minor).into());
        for (name, value) in xattrs {
            header.extend_from_slice(name);
            header.extend_from_slice(value);
        }
        let mut sha256 = Sha256::new();
        sha256.update(&header);
        let mut content_crc = crc32fast::Hasher::new();
        content_crc.update(link_target);
        Self {
            sha256,
            content_crc,
        }
    }

    /// Adds bytes of the file.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.content_crc.update(bytes);
    }

    pub(crate) fn finish(self) -> FileDigest {
        FileDigest {
            record: self.sha256.finish_bytes(),
            content_crc: self.content_crc.finalize(),
        }
    }
}

/// Appends a name and a number in decimal. The library's formatter takes as long for the six numbers of
/// a small file as SHA-256 does for its bytes.
fn push_field(out: &mut Vec<u8>, name: &[u8], mut number: u64) {
    out.extend_from_slice(name);
    let mut digits = [0; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[begin..]);
}
