//! OpenPGP: whether bytes were signed by the owner of a key.
//!
//! A signature counts where these hold, as for BuildKit:
//!
//! - it is one over data, by RSA, ECDSA or `EdDSA`, with SHA-256, SHA-384 or SHA-512;
//! - it is from a primary key that may sign, as its latest self-signature says, or from a subkey that may,
//!   bound to it by both keys;
//! - neither key is revoked, nor an RSA key of less than 2048 bits;
//! - the key was valid when it was made; with `reject_expired`, it is valid now;
//! - it was not made in the future.

use std::io::{self, Read};

use jiff::Timestamp;
use pgp::composed::{Deserializable as _, PublicOrSecret, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, PublicParams, Tag};
use rsa::traits::PublicKeyParts as _;

/// How much of a text is looked at, of keys or of a signature.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// How many keys there may be.
const MAX_KEYS: usize = 256;
/// How far a clock may be ahead of ours.
const MAX_AHEAD_SECONDS: i64 = 5 * 60;
/// What RSA keys must have.
const MIN_RSA_BITS: usize = 2048;
/// What a text with keys is made of.
const BLOCK: &str = "-----BEGIN ";
const BLOCK_END: &str = "\n-----END ";

/// Why a signature does not count.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotVerified(String);

type Result<T> = std::result::Result<T, NotVerified>;

fn no<T>(text: impl Into<String>) -> Result<T> {
    Err(NotVerified(text.into()))
}

/// Who may have signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signers<'a> {
    /// Their public keys, each in its armor.
    pub(crate) keys: &'a str,
    /// Whether keys that have expired since do not count.
    pub(crate) reject_expired: bool,
    /// The present.
    pub(crate) now: Timestamp,
}

/// Checks a detached signature, in its armor, over what `open` reads: it is read once for each key that
/// may have signed.
pub(crate) fn verify<R: Read>(
    signers: Signers<'_>,
    signature: &str,
    open: impl Fn() -> io::Result<R>,
) -> Result<()> {
    let signature = read_signature(signature)?;
    let keys = read_keys(signers.keys)?;
    check_algorithms(&signature)?;
    let found = verify_by(signers, &signature, &keys, open);
    found.map_err(|error| match issuer(&signature) {
        Some(issuer) => NotVerified(format!("signature by {issuer}: {error}")),
        None => error,
    })
}

fn read_signature(text: &str) -> Result<Signature> {
    if text.len() > MAX_TEXT_BYTES {
        return no("the signature is larger than 1 MiB");
    }
    let text = text.trim_start();
    let Some(block) = text.strip_prefix(BLOCK) else {
        return no("failed to decode armored signature: EOF");
    };
    if block.starts_with("SSH SIGNATURE-----") {
        return no("unsupported signature type");
    }
    let bad = |error: pgp::errors::Error| {
        NotVerified(format!("failed to decode armored signature: {error}"))
    };
    let (parsed, _) = pgp::composed::DetachedSignature::from_string(text).map_err(bad)?;
    Ok(parsed.signature)
}

/// Reads keys, each in an armor of its own or several in one.
fn read_keys(text: &str) -> Result<Vec<SignedPublicKey>> {
    if text.len() > MAX_TEXT_BYTES {
        return no("the public keys are larger than 1 MiB");
    }
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BLOCK) {
        let (block, after) = split_block(&rest[start..]);
        rest = after;
        let bad = |error: pgp::errors::Error| {
            NotVerified(format!("failed to read armored public key: {error}"))
        };
        let (read, _) = PublicOrSecret::from_armor_many(block.as_bytes()).map_err(bad)?;
        for key in read {
            keys.push(match key.map_err(bad)? {
                PublicOrSecret::Public(key) => key,
                PublicOrSecret::Secret(key) => key.to_public_key(),
            });
            if keys.len() > MAX_KEYS {
                return no(format!("there are more than {MAX_KEYS} public keys"));
            }
        }
    }
    if keys.is_empty() {
        return no("failed to read armored public key: no armored data found");
    }
    Ok(keys)
}

/// Splits a text after the armor that it begins with, or after all of it.
fn split_block(text: &str) -> (&str, &str) {
    let last_line = text.find(BLOCK_END).map_or(text.len(), |at| at + 1);
    let end = text[last_line..].find('\n');
    text.split_at(end.map_or(text.len(), |end| last_line + end + 1))
}

fn check_algorithms(signature: &Signature) -> Result<()> {
    let Some(config) = signature.config() else {
        return no("no signature packet found");
    };
    match config.hash_alg {
        HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512 => {}
        other => return no(format!("rejecting weak/unknown hash: {other}")),
    }
    match config.pub_alg {
        PublicKeyAlgorithm::RSA
        | PublicKeyAlgorithm::RSASign
        | PublicKeyAlgorithm::ECDSA
        | PublicKeyAlgorithm::EdDSALegacy => {}
        other => {
            let number = u8::from(other);
            return no(format!("rejecting unsupported pubkey algorithm: {number}"));
        }
    }
    if !matches!(config.typ, SignatureType::Binary | SignatureType::Text) {
        return no("the signature is not one over data");
    }
    let unknown = |data: &SubpacketData| {
        matches!(
            data,
            SubpacketData::Notation(_) | SubpacketData::Experimental(..) | SubpacketData::Other(..)
        )
    };
    let mut subpackets = config.hashed_subpackets();
    if subpackets.any(|subpacket| subpacket.is_critical && unknown(&subpacket.data)) {
        return no("the signature says something critical that is not understood");
    }
    Ok(())
}

/// Returns who is said to have made a signature.
fn issuer(signature: &Signature) -> Option<String> {
    let id = signature.issuer_key_id().first().map(ToString::to_string);
    let fingerprint = || {
        let fingerprint = signature.issuer_fingerprint().first()?.to_string();
        let at = fingerprint.len().checked_sub(16)?;
        fingerprint.get(at..).map(str::to_owned)
    };
    id.or_else(fingerprint).map(|id| id.to_uppercase())
}

fn is_issuer(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (id, fingerprint) = (key.legacy_key_id(), key.fingerprint());
    signature.issuer_key_id().contains(&&id)
        || signature.issuer_fingerprint().contains(&&fingerprint)
}

fn verify_by<R: Read>(
    signers: Signers<'_>,
    signature: &Signature,
    keys: &[SignedPublicKey],
    open: impl Fn() -> io::Result<R>,
) -> Result<()> {
    let mut last = NotVerified("openpgp: signature made by unknown entity".to_owned());
    for owner in keys {
        // What a key says of itself counts only if it has signed that.
        let Some(own) = self_signature(owner) else {
            continue;
        };
        let primary = &owner.primary_key;
        let mut checks = Vec::new();
        if is_issuer(signature, primary) && may_sign(own) {
            let valid = signature.verify(primary, opened(&open)?);
            checks.push(valid.map(|()| None));
        }
        for subkey in &owner.public_subkeys {
            let Some(binding) = binding(owner, subkey).filter(|it| it.key_flags().sign()) else {
                continue;
            };
            if is_issuer(signature, &subkey.key) {
                let valid = signature.verify(&subkey.key, opened(&open)?);
                checks.push(valid.map(|()| Some((subkey, binding))));
            }
        }
        for check in checks {
            match check {
                Ok(subkey) => {
                    return check_validity(signers, signature, (owner, own), subkey);
                }
                Err(error) => {
                    last = NotVerified(format!("openpgp: invalid signature: {error}"));
                }
            }
        }
    }
    Err(last)
}

fn opened<R>(open: &impl Fn() -> io::Result<R>) -> Result<R> {
    open().map_err(|error| NotVerified(format!("cannot read what is signed: {error}")))
}

/// Returns the latest of the signatures in which a key says what it is for.
fn self_signature(key: &SignedPublicKey) -> Option<&Signature> {
    let primary = &key.primary_key;
    let users = key.details.users.iter().flat_map(|user| {
        let signatures = user.signatures.iter().filter(|it| it.is_certification());
        signatures.filter(|it| {
            is_issuer(it, primary)
                && it
                    .verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    users.max_by_key(|signature| created(signature))
}

/// Returns the latest of the signatures that bind a subkey; if it is to sign, it has agreed.
fn binding<'k>(
    owner: &'k SignedPublicKey,
    subkey: &'k SignedPublicSubKey,
) -> Option<&'k Signature> {
    let bindings = subkey.signatures.iter().filter(|signature| {
        signature.typ() == Some(SignatureType::SubkeyBinding)
            && signature
                .verify_subkey_binding(&owner.primary_key, &subkey.key)
                .is_ok()
    });
    let latest = bindings.max_by_key(|signature| created(signature))?;
    let agreed = !latest.key_flags().sign()
        || latest.embedded_signature().is_some_and(|back| {
            back.verify_primary_key_binding(&subkey.key, &owner.primary_key)
                .is_ok()
        });
    agreed.then_some(latest)
}

/// Whether a primary key is for signatures; one that says nothing is for all.
fn may_sign(own: &Signature) -> bool {
    let says = own.config().is_some_and(|config| {
        let mut subpackets = config.hashed_subpackets();
        subpackets.any(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)))
    });
    !says || own.key_flags().sign()
}

fn created(signature: &Signature) -> i64 {
    signature.created().map_or(0, |at| i64::from(at.as_secs()))
}

/// Checks what is said of the key that has made a signature, and of its owner.
fn check_validity(
    signers: Signers<'_>,
    signature: &Signature,
    (owner, own): (&SignedPublicKey, &Signature),
    subkey: Option<(&SignedPublicSubKey, &Signature)>,
) -> Result<()> {
    let primary = &owner.primary_key;
    let made = created(signature);
    let now = signers.now.as_second();
    if made > now + MAX_AHEAD_SECONDS {
        return no("signature creation time is in the future");
    }
    for revocation in &owner.details.revocation_signatures {
        let is_one = revocation.typ() == Some(SignatureType::KeyRevocation);
        if is_one && revocation.verify_key(primary).is_ok() {
            return revoked(revocation);
        }
    }
    check_key(signers, primary, own, made)?;
    let Some((subkey, binding)) = subkey else {
        return Ok(());
    };
    for revocation in &subkey.signatures {
        let is_one = revocation.typ() == Some(SignatureType::SubkeyRevocation);
        if is_one
            && revocation
                .verify_subkey_binding(primary, &subkey.key)
                .is_ok()
        {
            return revoked(revocation);
        }
    }
    check_key(signers, &subkey.key, binding, made)
}

fn revoked(revocation: &Signature) -> Result<()> {
    let reason = revocation.revocation_reason_string();
    let reason = reason.map(|text| String::from_utf8_lossy(text).into_owned());
    match reason.filter(|text| !text.is_empty()) {
        Some(reason) => no(format!("key revoked: {reason}")),
        None => no("key revoked"),
    }
}

/// Checks a key's strength, and when it is valid, by the signature that speaks for it.
fn check_key(
    signers: Signers<'_>,
    key: &impl KeyDetails,
    says: &Signature,
    made: i64,
) -> Result<()> {
    if let PublicParams::RSA(rsa) = key.public_params() {
        let bits = rsa.key.n().bits();
        if bits < MIN_RSA_BITS {
            return no(format!("RSA key too short: {bits} bits"));
        }
    }
    let begins = i64::from(key.created_at().as_secs());
    if made < begins {
        return no("openpgp: signature made before its key");
    }
    let lifetime = says
        .key_expiration_time()
        .map_or(0, pgp::types::Duration::as_secs);
    let at = if signers.reject_expired {
        made.max(signers.now.as_second())
    } else {
        made
    };
    if lifetime > 0 && at > begins + i64::from(lifetime) {
        return no("openpgp: key expired");
    }
    Ok(())
}

#[cfg(test)]
#[path = "openpgp_tests.rs"]
mod tests;
