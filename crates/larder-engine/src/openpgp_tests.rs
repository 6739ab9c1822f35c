//! Keys and signatures in `testdata` were made by GnuPG 2.2. All keys were made on 2024-01-01, and all
//! signatures on 2024-06-01, but `future`. `old` expired on 2025-01-01, `gone` is revoked, `sub` signs
//! with a subkey, `short` has 1024 bits, `weak` is made with SHA-1, and `text` over text.

use super::*;

macro_rules! testdata {
    ($name:literal) => {
        include_str!(concat!("openpgp/testdata/", $name))
    };
}

const PAYLOAD: &str = testdata!("payload");
const SIGNER: &str = testdata!("signer.key");
const SIGNED: &str = testdata!("signer.sig");

fn check(keys: &str, signature: &str, payload: &str, reject_expired: bool) -> Result<()> {
    let signers = Signers {
        keys,
        reject_expired,
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    verify(signers, signature, || Ok(payload.as_bytes()))
}

fn error(keys: &str, signature: &str) -> String {
    check(keys, signature, PAYLOAD, false)
        .unwrap_err()
        .to_string()
}

#[test]
fn signatures_of_all_kinds_of_keys_count() {
    for (name, key, signature) in [
        ("signer", SIGNER, SIGNED),
        ("rsa", testdata!("rsa.key"), testdata!("rsa.sig")),
        ("curve", testdata!("curve.key"), testdata!("curve.sig")),
        ("sub", testdata!("sub.key"), testdata!("sub.sig")),
        ("text", SIGNER, testdata!("text.sig")),
        ("old", testdata!("old.key"), testdata!("old.sig")),
    ] {
        check(key, signature, PAYLOAD, false).unwrap_or_else(|error| panic!("{name}: {error}"));
        let changed = check(key, signature, "paylaod\n", false).unwrap_err();
        let text = changed.to_string();
        assert!(text.contains("openpgp: invalid signature: "), "{text}");
    }
    // Lines end as they may in text.
    check(SIGNER, testdata!("text.sig"), "payload\r\n", false).unwrap();
    assert!(check(SIGNER, SIGNED, "payload\r\n", false).is_err());
    let many = [testdata!("rsa.key"), "\nof others:\n", SIGNER].concat();
    check(&many, SIGNED, PAYLOAD, true).unwrap();
}

#[test]
fn keys_and_signatures_that_do_not_count_are_named() {
    for (key, signature, expected) in [
        (
            testdata!("rsa.key"),
            SIGNED,
            "signature by 8E679E625C617C56: openpgp: signature made by unknown entity",
        ),
        (
            SIGNER,
            testdata!("weak.sig"),
            "rejecting weak/unknown hash: SHA1",
        ),
        (
            SIGNER,
            testdata!("future.sig"),
            "signature creation time is in the future",
        ),
        (testdata!("gone.key"), testdata!("gone.sig"), "key revoked"),
        (
            testdata!("short.key"),
            testdata!("short.sig"),
            "RSA key too short: 1024 bits",
        ),
        ("", SIGNED, "failed to read armored public key"),
        (SIGNER, "", "failed to decode armored signature: EOF"),
        (
            SIGNER,
            "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
            "unsupported signature type",
        ),
        (SIGNER, SIGNER, "failed to decode armored signature"),
        (SIGNED, SIGNED, "failed to read armored public key"),
        (&SIGNER[..200], SIGNED, "failed to read armored public key"),
    ] {
        let text = error(key, signature);
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let old = check(testdata!("old.key"), testdata!("old.sig"), PAYLOAD, true);
    let text = old.unwrap_err().to_string();
    assert!(text.contains("key expired"), "{text}");
    let large = "x".repeat(MAX_TEXT_BYTES + 1);
    assert!(error(&large, SIGNED).contains("larger than 1 MiB"));
    assert!(error(SIGNER, &large).contains("larger than 1 MiB"));
}

#[test]
fn a_subkey_that_its_key_has_not_bound_does_not_count() {
    // The owner's own packets with the subkey of another: its binding is not the owner's.
    let owner = read_keys(SIGNER).unwrap().remove(0);
    let other = read_keys(testdata!("sub.key")).unwrap().remove(0);
    let stolen = SignedPublicKey {
        public_subkeys: other.public_subkeys,
        ..owner
    };
    let signature = read_signature(testdata!("sub.sig")).unwrap();
    let signers = Signers {
        keys: "",
        reject_expired: false,
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    let found = verify_by(signers, &signature, &[stolen], || Ok(PAYLOAD.as_bytes()));
    let text = found.unwrap_err().to_string();
    assert_eq!(text, "openpgp: signature made by unknown entity");
}
