//! Archives of any kind: an image holds what a directory would, and fails where that would.

use std::path::PathBuf;

use larder_tree::tar::{Header, Kind};
use proptest::prelude::*;
use rustix::fs::Timespec;

use crate::support::{TestImage, apply, apply_to_both, archive, can_mount, name};

type Entry = (Header, Vec<u8>);

/// Few names, so that entries meet each other.
fn path() -> impl Strategy<Value = PathBuf> {
    let names: &[&[u8]] = &[
        b"a",
        b"a",
        b"b",
        b"b",
        b"c",
        b"\xff",
        b"!",
        b".",
        b"..",
        b".wh.a",
        b".wh.b",
        b".wh.",
        b".wh..wh..opq",
        b".wh..wh.x",
    ];
    let one = prop::sample::select(names.to_vec());
    let parts = prop::collection::vec(one, 1..4);
    (any::<bool>(), parts).prop_map(|(is_absolute, parts)| {
        let joined = parts.join(&b'/');
        let prefix: &[u8] = if is_absolute { b"/" } else { b"" };
        PathBuf::from(name([prefix, &joined].concat()))
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::File),
        3 => Just(Kind::Directory),
        2 => path().prop_map(Kind::Symlink),
        2 => path().prop_map(Kind::HardLink),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::CharDevice(0, 0)),
        1 => (0..4096_u32, 0..1_u32 << 20).prop_map(|(major, minor)| Kind::BlockDevice(major, minor)),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let length = prop_oneof![
        4 => 0..100_usize,
        2 => 3900..4200_usize,
        1 => 8000..8300_usize,
        1 => 0..200_000_usize,
    ];
    let owner = prop_oneof![3 => 0..3_u32, 1 => 65_535..65_537_u32, 1 => 0..u32::MAX];
    let time = (
        0..3_i64,
        prop_oneof![3 => Just(0), 1 => 0..1_000_000_000_i64],
    );
    let xattr = prop::option::weighted(0.3, (0..3_u8, 0..600_usize));
    let attributes = (0..0o10000_u32, owner.clone(), owner, time, xattr);
    (path(), kind(), length, attributes).prop_map(|(path, kind, length, attributes)| {
        let (mode, uid, gid, time, xattr) = attributes;
        let mut header = Header::new(path, kind, mode);
        (header.uid, header.gid) = (uid, gid);
        header.mtime = Timespec {
            tv_sec: time.0,
            tv_nsec: time.1,
        };
        if let Some((number, length)) = xattr {
            let value = vec![number; length];
            header
                .xattrs
                .insert(vec![b'u', b's', b'e', b'r', b'.', b'0' + number], value);
        }
        let is_file = header.kind == Kind::File;
        let data = if is_file {
            vec![length as u8 | 1; length]
        } else {
            Vec::new()
        };
        (header, data)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_archive_makes_the_same_of_an_image_as_of_a_directory(
        entries in prop::collection::vec(entry(), 0..24),
    ) {
        if can_mount() && apply_to_both(&archive(&entries)).is_none() {
            let good = without_bad_ones(entries);
            prop_assert!(apply_to_both(&archive(&good)).is_some());
        }
    }
}

/// Returns the entries that are no errors among those before.
fn without_bad_ones(entries: Vec<Entry>) -> Vec<Entry> {
    let mut good = Vec::new();
    for entry in entries {
        good.push(entry);
        let test = TestImage::new();
        if apply(&test.begin(), &archive(&good)).0.is_err() {
            good.pop();
        }
    }
    good
}

#[test]
fn no_bytes_make_the_writer_panic() {
    let entries: Vec<Entry> = (0..40)
        .map(|number| {
            (
                Header::file(format!("d{}/f{number}", number % 3), 0),
                vec![1; 700],
            )
        })
        .collect();
    let packed = archive(&entries);
    let mut seed = 7_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed as usize >> 8
    };
    for _ in 0..300 {
        let mut bytes = packed.clone();
        for _ in 0..next() % 6 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        bytes.truncate(next() % (2 * bytes.len()) + 1);
        let test = TestImage::new();
        let image = test.begin();
        let _ = apply(&image, &bytes);
        image.finish().unwrap();
    }
}
