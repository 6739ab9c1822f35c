use std::collections::HashMap;

use super::attributes::{Attributes, Kind};
use super::tree::{Entry, Tree};
use crate::{Error, ErrorKind, Result};

/// What the file is called that has a listing, where only that is transferred.
pub const METADATA_NAME: &str = ".fsutil-metadata";
/// As large a listing as is made: that of a few million files.
const MAX_BYTES: usize = 1 << 30;

/// Returns a listing of a tree in the form in which BuildKit writes [`METADATA_NAME`]: for each entry, in
/// their order, the length of a message, four bytes with the lowest first, and the message in
/// protobuf's wire format, fields that are zero left out.
///
/// | field | what |
/// | --- | --- |
/// | 1 | the path, relative |
/// | 2 | the mode, as Go has it |
/// | 3, 4 | user and group |
/// | 5 | the size: of a file, or of a link's target |
/// | 6 | the time of modification, nanoseconds since 1970 |
/// | 7 | a link's target; of further names of a file, the first |
/// | 8, 9 | a device's numbers |
/// | 10 | extended attributes |
///
/// # Errors
/// `Io` for entries whose attributes can't be read; `LimitExceeded` for a listing past 1 GiB.
pub fn metadata(tree: &Tree) -> Result<Vec<u8>> {
    let mut listing = Vec::new();
    let mut names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    for entry in tree.entries()? {
        if entry.path_bytes() == METADATA_NAME.as_bytes() {
            continue;
        }
        let attributes = entry.attributes();
        let stamp = &attributes.stamp;
        let mut first_name = None;
        if attributes.kind != Kind::Dir && attributes.link_count > 1 {
            let name = names.entry((stamp.device, stamp.inode));
            let name = &*name.or_insert_with(|| entry.path_bytes().to_owned());
            first_name = (name != entry.path_bytes()).then(|| name.clone());
        }
        let message = message(&entry, first_name.as_deref())?;
        let length = u32::try_from(message.len()).map_err(|_| too_large())?;
        listing.extend_from_slice(&length.to_le_bytes());
        listing.extend_from_slice(&message);
        if listing.len() > MAX_BYTES {
            return Err(too_large());
        }
    }
    Ok(listing)
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::LimitExceeded,
        "the listing of the tree is larger than 1 GiB",
    )
}

fn message(entry: &Entry<'_>, first_name: Option<&[u8]>) -> Result<Vec<u8>> {
    let attributes = entry.attributes();
    let target = entry.link_target();
    let size = match (attributes.kind, first_name) {
        (_, Some(_)) => 0,
        (Kind::Symlink, None) => target.len() as u64,
        _ => attributes.size,
    };
    let (major, minor) = attributes.device;
    let mut message = Vec::new();
    bytes(&mut message, 1, entry.path_bytes());
    number(&mut message, 2, go_mode(attributes).into());
    number(&mut message, 3, attributes.uid.into());
    number(&mut message, 4, attributes.gid.into());
    number(&mut message, 5, size);
    // Negative numbers stand as their complement.
    number(&mut message, 6, attributes.modified_at_nanos as u64);
    bytes(&mut message, 7, first_name.unwrap_or(target));
    number(&mut message, 8, major.into());
    number(&mut message, 9, minor.into());
    for (name, value) in entry.xattrs()? {
        let mut pair = Vec::new();
        bytes(&mut pair, 1, &name);
        bytes(&mut pair, 2, &value);
        bytes(&mut message, 10, &pair);
    }
    Ok(message)
}

/// Returns a mode as Go's `os.FileMode` has it.
fn go_mode(attributes: &Attributes) -> u32 {
    const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let kind = match attributes.kind {
        Kind::File => 0,
        Kind::Dir => 1 << 31,
        Kind::Symlink => 1 << 27,
        Kind::BlockDevice => 1 << 26,
        Kind::CharDevice => 1 << 26 | 1 << 21,
        Kind::Fifo => 1 << 25,
        Kind::Socket => 1 << 24,
    };
    let special = SPECIAL.iter().filter(|(bit, _)| attributes.mode & bit != 0);
    let special: u32 = special.map(|(_, go)| go).sum();
    kind | special | (attributes.mode & 0o777)
}

/// Appends a field with a number.
fn number(message: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        message.push(field << 3);
        varint(message, value);
    }
}

/// Appends a field with bytes.
fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        message.push(field << 3 | 2);
        varint(message, value.len() as u64);
        message.extend_from_slice(value);
    }
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::beneath::Root;

    /// Reads a message: its fields with their numbers.
    fn fields(mut message: &[u8]) -> Vec<(u8, u64, Vec<u8>)> {
        let mut fields = Vec::new();
        while let Some((tag, rest)) = message.split_first() {
            message = rest;
            let mut value = 0;
            let mut shift = 0;
            loop {
                let (byte, rest) = message.split_first().unwrap();
                message = rest;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let (text, rest) = match tag & 7 {
                2 => message.split_at(value as usize),
                _ => (&[][..], message),
            };
            message = rest;
            fields.push((tag >> 3, value, text.to_owned()));
        }
        fields
    }

    #[test]
    fn a_listing_tells_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/f"), "four").unwrap();
        std::fs::set_permissions(path("d/f"), std::fs::Permissions::from_mode(0o4640)).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(5);
        let file = std::fs::File::options()
            .write(true)
            .open(path("d/f"))
            .unwrap();
        file.set_modified(modified).unwrap();
        std::fs::hard_link(path("d/f"), path("e")).unwrap();
        symlink("d/f", path("l")).unwrap();
        std::fs::write(path(METADATA_NAME), "no part of it").unwrap();

        let tree = Tree::view(Root::open(directory.path()).unwrap()).unwrap();
        let listing = metadata(&tree).unwrap();
        let mut rest = &*listing;
        let mut found = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (message, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            found.push(fields(message));
            rest = after;
        }
        let field = |entry: usize, number: u8| {
            let mut fields = found[entry].iter();
            fields.find(|field| field.0 == number).cloned()
        };
        let text = |entry, number| {
            let text = field(entry, number).map(|(_, _, text)| text);
            String::from_utf8(text.unwrap_or_default()).unwrap()
        };
        let value = |entry, number| field(entry, number).map_or(0, |(_, value, _)| value);
        let paths: Vec<String> = (0..found.len()).map(|entry| text(entry, 1)).collect();
        assert_eq!(paths, ["d", "d/f", "e", "l"]);
        assert_eq!(value(0, 2) >> 9, 1 << 22, "a directory");
        assert_eq!(value(1, 2), 1 << 23 | 0o640);
        assert_eq!((value(1, 5), value(1, 6)), (4, 5));
        assert_eq!((value(2, 5), text(2, 7)), (0, "d/f".to_owned()));
        assert_eq!(value(3, 2), 1 << 27 | 0o777);
        assert_eq!((value(3, 5), text(3, 7)), (3, "d/f".to_owned()));
    }
}
