use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use sha2::compress256;
use sha2::digest::block_buffer::EagerBuffer;
use sha2::digest::consts::U64;

/// Begins the digests that are made here.
const SHA256_PREFIX: &str = "sha256:";

/// A content digest, `algorithm:hex`: the name of exact bytes.
///
/// Follows the `digest` grammar of the OCI image specification. Two digests are equal when their
/// texts are. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest(Arc<str>);

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest (expected `sha256:` and 64 hexadecimal digits)")]
pub struct DigestError(String);

impl Digest {
    /// Returns the SHA-256 digest of `bytes`.
    pub fn sha256(bytes: impl AsRef<[u8]>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// Returns the digest whose SHA-256 sum is `sum`.
    pub fn from_sha256(sum: [u8; 32]) -> Self {
        let mut text = *b"sha256:0000000000000000000000000000000000000000000000000000000000000000";
        hex::encode_to_slice(sum, &mut text[SHA256_PREFIX.len()..])
            .expect("the text has two digits for each byte");
        let text = std::str::from_utf8(&text).expect("digits are ASCII");
        Self(Arc::from(text))
    }

    /// Returns the 32 bytes of a `sha256` digest; `None` for another algorithm.
    pub fn sha256_bytes(&self) -> Option<[u8; 32]> {
        let mut sum = [0; 32];
        hex::decode_to_slice(self.0.strip_prefix(SHA256_PREFIX)?, &mut sum).ok()?;
        Some(sum)
    }

    /// Returns the whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part before the colon.
    pub fn algorithm(&self) -> &str {
        self.0
            .split_once(':')
            .map_or("", |(algorithm, _)| algorithm)
    }

    /// Returns the part after the colon.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        let lower_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        let length = match text.split_once(':') {
            Some(("sha256", hex)) if hex.bytes().all(lower_hex) => Some((hex.len(), 64)),
            Some(("sha384", hex)) if hex.bytes().all(lower_hex) => Some((hex.len(), 96)),
            Some(("sha512", hex)) if hex.bytes().all(lower_hex) => Some((hex.len(), 128)),
            _ => None,
        };
        match length {
            Some((actual, expected)) if actual == expected => Ok(Self(Arc::from(text))),
            _ => Err(DigestError(text)),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.as_str().to_owned()
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The state before the first block (FIPS 180-4, 5.3.3).
const INITIAL_STATE: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// How many bytes are a block.
const BLOCK_BYTES: u64 = 64;

/// A running SHA-256 computation. It can be saved at any time, and taken up by another process.
#[derive(Clone)]
pub struct Sha256 {
    state: [u32; 8],
    pending: EagerBuffer<U64>,
    length: u64,
}

/// A SHA-256 computation that was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSha256 {
    /// The state after the last full block.
    pub state: [u32; 8],
    /// How many bytes were added.
    pub length: u64,
    /// Those of them that don't fill a block, fewer than 64.
    pub pending: Vec<u8>,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self {
            state: INITIAL_STATE,
            pending: EagerBuffer::default(),
            length: 0,
        }
    }
}

impl Sha256 {
    /// Starts a computation over no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with a computation as it was saved; `None` if it never was in that state.
    pub fn resume(saved: &SavedSha256) -> Option<Self> {
        let is_sound = saved.length % BLOCK_BYTES == saved.pending.len() as u64;
        is_sound.then(|| Self {
            state: saved.state,
            pending: EagerBuffer::new(&saved.pending),
            length: saved.length,
        })
    }

    /// Returns what it takes to go on from here.
    pub fn save(&self) -> SavedSha256 {
        SavedSha256 {
            state: self.state,
            length: self.length,
            pending: self.pending.get_data().to_vec(),
        }
    }

    /// Returns how many bytes were added.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let state = &mut self.state;
        self.pending
            .digest_blocks(bytes, |blocks| compress256(state, blocks));
    }

    /// Returns the digest of all bytes added.
    pub fn finish(self) -> Digest {
        Digest::from_sha256(self.finish_bytes())
    }

    /// Returns the 32 bytes of the sum of all bytes added.
    pub fn finish_bytes(mut self) -> [u8; 32] {
        let state = &mut self.state;
        self.pending
            .len64_padding_be(self.length.wrapping_mul(8), |block| {
                compress256(state, std::slice::from_ref(block));
            });
        let mut sum = [0; 32];
        for (bytes, word) in sum.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        sum
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

impl std::io::Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_well_formed_digests() {
        let good = format!("sha256:{}", "a".repeat(64));
        assert_eq!(good.parse::<Digest>().unwrap().as_str(), good);
        for bad in [
            "",
            "sha256:",
            "sha256:zz",
            "md5:00",
            &format!("sha256:{}", "A".repeat(64)),
            "sha256",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sum_is_that_of_any_other_implementation_however_the_bytes_come() {
        use sha2::Digest as _;
        let bytes: Vec<u8> = (0..1000_u32).map(|at| ((at * at) >> 3) as u8).collect();
        for length in (0..200).chain([255, 256, 257, 1000]) {
            let expected: [u8; 32] = sha2::Sha256::digest(&bytes[..length]).into();
            for step in [1, 7, 63, 64, 65, 1000] {
                let mut hasher = Sha256::new();
                for part in bytes[..length].chunks(step) {
                    hasher.update(part);
                }
                assert_eq!(hasher.length(), length as u64);
                assert_eq!(hasher.finish_bytes(), expected, "{length} by {step}");
            }
        }
    }

    #[test]
    fn a_saved_computation_goes_on_to_the_same_sum() {
        let bytes: Vec<u8> = (0..400_u32).map(|at| (at * 31) as u8).collect();
        for at in 0..bytes.len() {
            let mut first = Sha256::new();
            first.update(&bytes[..at]);
            let saved = first.save();
            let mut second = Sha256::resume(&saved).unwrap();
            assert_eq!(second.save(), saved);
            second.update(&bytes[at..]);
            assert_eq!(second.finish(), Digest::sha256(&bytes), "{at}");
        }
        let mut first = Sha256::new();
        first.update(&bytes[..70]);
        let mut saved = first.save();
        saved.pending.pop();
        assert!(Sha256::resume(&saved).is_none());
        saved.pending = vec![0; 70];
        assert!(Sha256::resume(&saved).is_none());
    }

    #[test]
    fn bytes_round_trip() {
        let digest = Digest::sha256("abc");
        assert_eq!(Digest::from_sha256(digest.sha256_bytes().unwrap()), digest);
    }
}
