use std::fmt;
use std::str::FromStr;

use larder_oci::Digest;
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlResult, ToSqlOutput, ValueRef};

use crate::{Error, Result};

/// The length of a [`SnapshotId`], as BuildKit's.
const LENGTH: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The name of a snapshot or of another record of `du`: 25 base-36 digits, random.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// Returns a name that nothing else has.
    pub(crate) fn random() -> Self {
        Self(random_text())
    }

    /// Returns the name under which `du` lists a blob that belongs to no snapshot.
    pub(crate) fn of_digest(digest: &Digest) -> Self {
        let sum = Digest::sha256(digest.as_str()).sha256_bytes();
        let bytes = sum.expect("Digest::sha256 makes sha256 digests");
        let digit = |byte: &u8| char::from(DIGITS[usize::from(byte % 36)]);
        Self(bytes[..LENGTH].iter().map(digit).collect())
    }

    /// Returns the name under which `du` lists what is no record.
    pub(crate) fn overhead() -> Self {
        Self(format!("{:0<LENGTH$}", "overhead"))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns 25 random base-36 digits: 129 bits.
pub(crate) fn random_text() -> String {
    /// The largest multiple of 36 that fits a byte; bytes from here on would favour low digits.
    const FAIR: u8 = 252;

    let mut text = String::with_capacity(LENGTH);
    while text.len() < LENGTH {
        let mut bytes = [0_u8; 32];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .expect("the kernel gives 32 random bytes at once");
        let digits = bytes.iter().filter(|byte| **byte < FAIR);
        for byte in digits.take(LENGTH - text.len()) {
            text.push(char::from(DIGITS[usize::from(byte % 36)]));
        }
    }
    text
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SnapshotId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() == LENGTH && text.bytes().all(|byte| DIGITS.contains(&byte)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(format_args!(
                "`{text}` is not a record's ID (expected {LENGTH} digits and lower-case letters)"
            )))
        }
    }
}

impl ToSql for SnapshotId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for SnapshotId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(|text| Self(text.to_owned()))
    }
}

/// The name of a cache key node: never used again, also after its node is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) i64);

impl KeyId {
    /// Returns the number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for KeyId {
    /// Returns the name with the number that [`KeyId::get`] gave.
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ToSql for KeyId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for KeyId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_25_base36_digits_and_differ() {
        let ids: std::collections::BTreeSet<_> = (0..100).map(|_| random_text()).collect();
        assert_eq!(ids.len(), 100);
        for id in ids {
            assert_eq!(id.parse::<SnapshotId>().unwrap().as_str(), id);
        }
        for bad in [
            "",
            "../../../../../../../etc/pas",
            "ABCDEFGHIJKLMNOPQRSTUVWXY",
        ] {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
        }
    }
}
