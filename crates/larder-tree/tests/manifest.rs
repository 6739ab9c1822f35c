//! Explanations of changed content keys.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use larder_tree::ErrorKind;
use larder_tree::beneath::Root;
use larder_tree::checksum::{Change, Manifest, Selector};
use larder_tree::context::{ScanOptions, StatCache, scan};
use proptest::prelude::*;

struct Context(tempfile::TempDir);

impl Context {
    fn new() -> Self {
        let context = Self(tempfile::tempdir().unwrap());
        for path in [
            "src/a.py",
            "src/b.py",
            "src/lib/c.py",
            "tests/t.py",
            "README",
        ] {
            fs::create_dir_all(context.at(path).parent().unwrap()).unwrap();
            fs::write(context.at(path), path).unwrap();
        }
        symlink("a.py", context.at("src/link")).unwrap();
        context
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn manifest(&self, selectors: &[Selector]) -> Manifest {
        let root = Root::open(self.0.path()).unwrap();
        let tree = scan(root, &ScanOptions::default(), StatCache::default()).unwrap();
        Manifest::of(&tree, selectors).unwrap()
    }
}

fn check(change: impl FnOnce(&Context), expected: &[(&str, Change)]) {
    let context = Context::new();
    let old = context.manifest(&[]);
    change(&context);
    let new = context.manifest(&[]);
    let differences = Manifest::compare(&old, &new);
    let found: Vec<(&str, Change)> = differences
        .iter()
        .map(|difference| (difference.path.as_str(), difference.change.clone()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn differences_tell_what_changed() {
    check(|_| (), &[]);
    check(
        |context| fs::write(context.at("src/a.py"), "changed").unwrap(),
        &[("src/a.py", Change::Content)],
    );
    check(
        |context| fs::write(context.at("src/a.py"), "src/x.py").unwrap(),
        &[("src/a.py", Change::Content)],
    );
    check(
        |context| {
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(context.at("README"), mode).unwrap();
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(context.at("src/lib"), mode).unwrap();
        },
        &[("README", Change::Mode), ("src/lib", Change::Mode)],
    );
    check(
        |context| {
            fs::write(context.at("src/new"), "new").unwrap();
            fs::remove_file(context.at("README")).unwrap();
        },
        &[("README", Change::Removed), ("src/new", Change::Added)],
    );
    check(
        |context| fs::rename(context.at("tests"), context.at("src/tests")).unwrap(),
        &[
            ("src/tests", Change::Added),
            (
                "src/tests/t.py",
                Change::Renamed {
                    from: "tests/t.py".to_owned(),
                },
            ),
            ("tests", Change::Removed),
        ],
    );
    check(
        |context| {
            fs::remove_file(context.at("src/link")).unwrap();
            symlink("b.py", context.at("src/link")).unwrap();
            fs::remove_file(context.at("src/b.py")).unwrap();
            fs::create_dir(context.at("src/b.py")).unwrap();
        },
        &[("src/b.py", Change::Kind), ("src/link", Change::Content)],
    );
    check(
        |context| {
            // Empty files are no evidence of a new name.
            fs::write(context.at("README"), "").unwrap();
            fs::rename(context.at("README"), context.at("ZREADME")).unwrap();
        },
        &[("README", Change::Removed), ("ZREADME", Change::Added)],
    );
}

#[test]
fn only_what_is_covered_is_listed() {
    let context = Context::new();
    let selector = |path: &str, exclude: &[&str]| Selector {
        path: path.to_owned(),
        wildcard: true,
        follow_links: true,
        exclude_patterns: exclude
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect(),
        ..Selector::default()
    };
    for (selector, count) in [
        (selector("/", &[]), 9),
        (selector("/src", &[]), 6),
        (selector("/src", &["lib", "*.py"]), 2),
        (selector("/src/*.py", &[]), 2),
        (selector("/src/link", &[]), 1),
        (selector("/none*", &[]), 0),
    ] {
        let manifest = context.manifest(std::slice::from_ref(&selector));
        assert_eq!(manifest.len(), count, "{selector:?}");
    }
}

#[test]
fn the_encoding_is_compact_and_comes_back() {
    let context = Context::new();
    let manifest = context.manifest(&[]);
    let encoded = manifest.encode();
    assert_eq!(Manifest::decode(&encoded).unwrap(), manifest);
    assert!(
        encoded.len() < manifest.len() * 48,
        "{} bytes",
        encoded.len()
    );
    let mut other = encoded.clone();
    other[0] += 1;
    assert_eq!(
        Manifest::decode(&other).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        Manifest::decode(&[]).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    for length in 2..encoded.len() {
        // What ends between two entries is a shorter manifest.
        if let Ok(part) = Manifest::decode(&encoded[..length]) {
            assert!(part.len() < manifest.len());
        }
    }
}

/// Pins version 1 of the encoding: a change of it needs another number.
#[test]
fn version_1_is_pinned() {
    let mut bytes = vec![1];
    for (shared, name, kind, mode) in [(0, "a/b", 0, 0o644_u16), (2, "c", 2, 0o777)] {
        bytes.extend([shared, name.len() as u8]);
        bytes.extend(name.as_bytes());
        bytes.push(kind);
        bytes.extend([(mode & 0x7f) as u8 | 0x80, (mode >> 7) as u8, 0, 5, 7]);
        bytes.extend([9; 16]);
        bytes.extend([1, 2, 3, 4]);
    }
    let manifest = Manifest::decode(&bytes).unwrap();
    assert_eq!(manifest.len(), 2);
    assert_eq!(manifest.encode(), bytes);
    let paths: Vec<String> = Manifest::compare(&Manifest::default(), &manifest)
        .into_iter()
        .map(|difference| difference.path)
        .collect();
    assert_eq!(paths, ["a/b", "a/c"]);
}

proptest! {
    #[test]
    fn foreign_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            let again = Manifest::decode(&manifest.encode()).unwrap();
            prop_assert_eq!(again, manifest);
        }
    }
}
