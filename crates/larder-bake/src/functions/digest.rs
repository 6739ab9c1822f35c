//! Digests, and identifiers made of them.

use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::{Done, exactly};
use crate::definitions::Definitions;
use crate::error::Error;
use crate::value::Value;

fn digest<D: md5::Digest>(args: &[Value]) -> Done {
    let [text] = exactly(args)?;
    Ok(Value::String(hex::encode(
        D::digest(text.to_text()?).as_slice(),
    )))
}

pub(super) fn md5(args: &[Value]) -> Done {
    digest::<Md5>(args)
}

pub(super) fn sha1(args: &[Value]) -> Done {
    digest::<Sha1>(args)
}

pub(super) fn sha256(args: &[Value]) -> Done {
    digest::<Sha256>(args)
}

pub(super) fn sha512(args: &[Value]) -> Done {
    digest::<Sha512>(args)
}

/// A random identifier.
pub(super) fn uuid_v4(args: &[Value], definitions: &Definitions) -> Done {
    let [] = exactly(args)?;
    Ok(Value::String(uuid(definitions.random(), 4)))
}

/// `uuidv5(namespace, name)`: the digest of both. The namespace is an identifier, or `dns`, `url`,
/// `oid` or `x500`.
pub(super) fn uuid_v5(args: &[Value]) -> Done {
    let [namespace, name] = exactly(args)?;
    let namespace = match namespace.to_text()?.as_str() {
        // RFC 9562, 6.6
        "dns" => "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        "url" => "6ba7b811-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        "oid" => "6ba7b812-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        "x500" => "6ba7b814-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        other => other.to_owned(),
    };
    let bytes = hex::decode(namespace.replace('-', ""))
        .ok()
        .filter(|bytes| bytes.len() == 16)
        .ok_or_else(|| Error::definition(format!("`{namespace}` is no UUID namespace")))?;
    let digest = Sha1::new()
        .chain_update(bytes)
        .chain_update(name.to_text()?)
        .finalize();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    Ok(Value::String(uuid(first, 5)))
}

/// Formats bytes as a UUID of a version (RFC 9562, 4).
fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}
