use rustix::fs::Timespec;

use super::sparse::PaxSparse;
use super::{Segment, Xattrs};
use crate::{Error, ErrorKind, Result};

/// The namespace that extended attributes have in PAX records.
pub(super) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What the PAX records of an entry say.
#[derive(Default)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timespec>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: PaxSparse,
}

impl PaxRecords {
    /// Reads the contents of an extended header. A later record of a name wins; unknown ones are
    /// skipped.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) =
                split_record(bytes).ok_or_else(|| malformed("a PAX record"))?;
            records.add(key, value)?;
            bytes = rest;
        }
        Ok(records)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            if name.is_empty() || name.contains(&0) {
                return Err(malformed("the name of an extended attribute"));
            }
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link_path = text(value)?,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" if !value.is_empty() => {
                let time = parse_time(value).ok_or_else(|| malformed("a PAX time"))?;
                self.mtime = Some(time);
            }
            b"GNU.sparse.name" => self.sparse.name = text(value)?,
            b"GNU.sparse.major" => self.sparse.major = number(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number(value)?,
            b"GNU.sparse.offset" => self.sparse.add_offset(required(value)?)?,
            b"GNU.sparse.numbytes" => self.sparse.add_length(required(value)?)?,
            b"GNU.sparse.map" => {
                let numbers: Vec<u64> = value
                    .split(|byte| *byte == b',')
                    .map(required)
                    .collect::<Result<_>>()?;
                let pairs = numbers.chunks_exact(2);
                if !pairs.remainder().is_empty() {
                    return Err(malformed("a sparse map"));
                }
                let segments = pairs.map(|pair| Segment {
                    offset: pair[0],
                    length: pair[1],
                });
                self.sparse.map = Some(segments.collect());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Appends the record `key=value`, whose length counts its own digits.
pub(super) fn write_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A space, an equals sign and a newline.
    let body = key.len() + value.len() + 3;
    let digits = |number: usize| number.to_string().len();
    let mut length = body + digits(body);
    length = body + digits(length);
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

pub(super) fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("malformed tar: {what}"))
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.strip_suffix(b"\n")?.get(space + 1..)?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

/// An empty value means that the field of the header holds.
fn text(value: &[u8]) -> Result<Option<Vec<u8>>> {
    if value.contains(&0) {
        return Err(malformed("a NUL in a name"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Result<Option<N>> {
    if value.is_empty() {
        return Ok(None);
    }
    required(value).map(Some)
}

fn required<N: std::str::FromStr>(value: &[u8]) -> Result<N> {
    std::str::from_utf8(value)
        .ok()
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| malformed("a number in a PAX record"))
}

/// Parses seconds with an optional fraction; digits beyond nanoseconds are dropped.
fn parse_time(value: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9.9}").parse().ok()?;
    // The kernel counts nanoseconds upwards, also before 1970.
    if whole.starts_with('-') && nanoseconds > 0 {
        Some(Timespec {
            tv_sec: seconds.checked_sub(1)?,
            tv_nsec: 1_000_000_000 - nanoseconds,
        })
    } else {
        Some(Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [1, 3, 4, 5, 88, 89, 90, 91, 92, 980, 985, 990, 995] {
            let value = vec![b'v'; length];
            let mut record = Vec::new();
            write_record(&mut record, b"path", &value);
            let parsed = split_record(&record).unwrap();
            assert_eq!(
                parsed,
                (b"path".as_slice(), value.as_slice(), &[][..]),
                "{length}"
            );
        }
    }

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let check = |text: &str, expect: Option<(i64, i64)>| {
            let time = parse_time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
            assert_eq!(time, expect, "{text}");
        };
        check("1700000000", Some((1_700_000_000, 0)));
        check("1.5", Some((1, 500_000_000)));
        check("1.0000000019", Some((1, 1)));
        check("-1.25", Some((-2, 750_000_000)));
        check("-0.5", Some((-1, 500_000_000)));
        check("1.x", None);
        check("", None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            "5 a=b",
            "6 a=b\n\n",
            "99 a=b\n",
            "a=b\n",
            "4 ab\n",
            "0 a=b\n",
            "2 a=b\n",
            "11 path=a\0\n",
            "9 size=x\n",
            "10 size=-1\n",
        ] {
            assert!(PaxRecords::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
