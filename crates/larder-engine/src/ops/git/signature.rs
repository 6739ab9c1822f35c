//! Signatures of commits and tags.

use jiff::Timestamp;
use larder_llb::git::GitSignature;

use crate::error::{BuildError, Result};
use crate::openpgp::{self, Signers};

/// What the signature of a tag begins with; it ends the tag.
const BEGINNINGS: [&[u8]; 2] = [
    b"-----BEGIN PGP SIGNATURE-----",
    b"-----BEGIN SSH SIGNATURE-----",
];
/// The headers of a commit that have its signature.
const HEADERS: [&[u8]; 2] = [b"gpgsig ", b"gpgsig-sha256 "];

/// What was signed, and the signature; empty for none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signed {
    data: Vec<u8>,
    signature: Vec<u8>,
}

/// Checks that a tag, or else the commit that it names, is signed as is asked for.
pub(super) fn verify(
    tag: Option<&[u8]>,
    commit: &[u8],
    wanted: &GitSignature,
    now: Timestamp,
) -> Result<()> {
    let check = |signed: &Signed| {
        let signers = Signers {
            keys: &wanted.public_keys,
            reject_expired: wanted.reject_expired,
            now,
        };
        let signature = String::from_utf8_lossy(&signed.signature);
        openpgp::verify(signers, &signature, || Ok(&*signed.data))
            .map_err(|error| BuildError::invalid(error.to_string()))
    };
    let of_tag = tag
        .filter(|_| !wanted.ignore_tag)
        .map(|tag| check(&split_tag(tag)));
    match of_tag {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) if wanted.require_tag => Err(error),
        None if wanted.require_tag => Err(BuildError::invalid(
            "signed tag required but no signed tag found",
        )),
        _ => check(&split_commit(commit)),
    }
}

/// Returns what was signed of a commit: all of it without the headers that have signatures.
fn split_commit(object: &[u8]) -> Signed {
    let mut signed = Signed::default();
    let mut in_signature = false;
    let mut rest = object;
    while !rest.is_empty() {
        let line = next_line(&mut rest);
        if line == b"\n" {
            signed.data.extend_from_slice(line);
            break;
        }
        if let Some(begin) = HEADERS.iter().find_map(|header| line.strip_prefix(*header)) {
            in_signature = true;
            signed.signature.extend_from_slice(begin);
        } else if in_signature && line.starts_with(b" ") {
            signed.signature.extend_from_slice(&line[1..]);
        } else {
            in_signature = false;
            signed.data.extend_from_slice(line);
        }
    }
    signed.data.extend_from_slice(rest);
    signed
}

/// Returns what was signed of a tag: what stands before the signature.
fn split_tag(object: &[u8]) -> Signed {
    let mut rest = object;
    // The headers.
    while !rest.is_empty() && next_line(&mut rest) != b"\n" {}
    while !rest.is_empty() {
        let begins = BEGINNINGS.iter().any(|beginning| {
            let after = rest.strip_prefix(*beginning);
            after.is_some_and(|after| after.is_empty() || after.starts_with(b"\n"))
        });
        if begins {
            let (data, signature) = object.split_at(object.len() - rest.len());
            return Signed {
                data: data.to_vec(),
                signature: signature.to_vec(),
            };
        }
        next_line(&mut rest);
    }
    Signed {
        data: object.to_vec(),
        signature: Vec::new(),
    }
}

/// Takes a line off, with its end.
fn next_line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| *byte == b'\n');
    let (line, after) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
    *rest = after;
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &[u8] = include_bytes!("../../openpgp/testdata/commit");
    const TAG: &[u8] = include_bytes!("../../openpgp/testdata/tag");
    const SIGNER: &str = include_str!("../../openpgp/testdata/signer.key");
    const OTHER: &str = include_str!("../../openpgp/testdata/rsa.key");

    /// Checks objects; which signatures suffice is told by `flags`: `r` to require a tag's, `i` to ignore
    /// it.
    fn check(tag: Option<&[u8]>, commit: &[u8], keys: &str, flags: &str) -> Result<(), String> {
        let wanted = GitSignature {
            public_keys: keys.to_owned(),
            reject_expired: false,
            require_tag: flags.contains('r'),
            ignore_tag: flags.contains('i'),
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        verify(tag, commit, &wanted, now).map_err(|error| error.to_string())
    }

    #[test]
    fn tags_and_commits_count_as_is_asked() {
        let unsigned = [&*split_commit(COMMIT).data, b""].concat();
        let unsigned_tag = split_tag(TAG).data;
        let nothing = "failed to decode armored signature: EOF";
        let no_tag = "signed tag required but no signed tag found";
        let unknown = "signature made by unknown entity";
        for (tag, commit, keys, flags, expected) in [
            (None, COMMIT, SIGNER, "", ""),
            (Some(TAG), COMMIT, SIGNER, "", ""),
            (Some(TAG), &*unsigned, SIGNER, "", ""),
            (Some(TAG), &unsigned, SIGNER, "r", ""),
            (Some(TAG), &unsigned, SIGNER, "i", nothing),
            (Some(TAG), COMMIT, SIGNER, "i", ""),
            (Some(TAG), COMMIT, SIGNER, "ri", no_tag),
            (None, COMMIT, SIGNER, "r", no_tag),
            (Some(&*unsigned_tag), COMMIT, SIGNER, "", ""),
            (Some(&*unsigned_tag), COMMIT, SIGNER, "r", nothing),
            (None, &unsigned, SIGNER, "", nothing),
            (Some(TAG), COMMIT, OTHER, "", unknown),
            (Some(TAG), COMMIT, OTHER, "r", unknown),
            (None, COMMIT, "", "", "failed to read armored public key"),
        ] {
            match check(tag, commit, keys, flags) {
                Ok(()) => assert_eq!(expected, "", "{flags}"),
                Err(error) => {
                    assert!(
                        !expected.is_empty() && error.contains(expected),
                        "{flags}: {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_changes_after_it_was_signed_does_not_count() {
        for (from, to) in [
            (&b"author t "[..], &b"author u "[..]),
            (b"\n\nx\n", b"\n\ny\n"),
            (b"\n\nx\n", b"\n\nx\n\n"),
            (b"tree 8", b"tree 9"),
        ] {
            let at = COMMIT.windows(from.len()).position(|found| found == from);
            let (before, after) = COMMIT.split_at(at.unwrap());
            let changed = [before, to, &after[from.len()..]].concat();
            let error = check(None, &changed, SIGNER, "").unwrap_err();
            assert!(error.contains("invalid signature"), "{error}");
        }
        let at = TAG.windows(3).position(|found| found == b"v1\n").unwrap();
        let (before, after) = TAG.split_at(at);
        let changed = [before, b"v2", &after[2..]].concat();
        assert!(check(Some(&changed), COMMIT, SIGNER, "r").is_err());
        for odd in [&b""[..], b"\n", b"gpgsig ", b"gpgsig x", b"tree"] {
            assert!(check(Some(odd), odd, SIGNER, "").is_err());
        }
    }
}
