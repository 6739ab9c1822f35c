//! What files hold.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use larder_tree::tar::{Header, Kind};

use crate::support::{TestImage, apply, apply_to_both, archive, can_mount, unpack_image};

fn bytes(length: usize) -> Vec<u8> {
    // No two blocks alike.
    let mut state = length as u32 | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

#[test]
fn every_length_around_blocks_and_ends_is_kept() {
    if !can_mount() {
        return;
    }
    let near = |middle: usize| middle.saturating_sub(1)..=middle + 1;
    // 4096 less an inode, short and long, is the longest end that still lies with it.
    let lengths = [
        0,
        1,
        31,
        32,
        2048,
        4032,
        4064,
        4096,
        8192 - 64,
        8192,
        12_288,
        1 << 20,
    ]
    .into_iter()
    .flat_map(near);
    let mut entries: Vec<_> = lengths
        .enumerate()
        .map(|(number, length)| {
            let mut header = Header::file(format!("{number}-{length}"), 0);
            // The first time is that of short inodes.
            header.mtime.tv_sec = (number % 2) as i64;
            (header, bytes(length))
        })
        .collect();
    // Attributes move the end.
    for (length, value) in [
        (4000, 100),
        (100, 4000),
        (96, 4000),
        (5000, 9000),
        (8100, 50_000),
    ] {
        let mut header = Header::file(format!("x{length}-{value}"), 0);
        header.xattrs.insert(b"user.long".to_vec(), bytes(value));
        if value > 4096 {
            // More than the file system of the comparison may hold.
            header.xattrs.insert(b"user.long".to_vec(), bytes(3000));
        }
        entries.push((header, bytes(length)));
    }
    let (found, summary) = apply_to_both(&archive(&entries)).unwrap();
    assert_eq!(summary.inode_count, found.len() as u64 + 1);
}

#[test]
fn attributes_that_span_blocks_are_kept() {
    if !can_mount() {
        return;
    }
    let mut file = Header::file("f", 0);
    let mut dir = Header::directory("d");
    for (header, length) in [(&mut file, 60_000), (&mut dir, 5000)] {
        for number in 0..3 {
            let name = format!("user.{number}").into_bytes();
            header.xattrs.insert(name, bytes(length + number));
        }
    }
    let test = TestImage::new();
    let image = test.begin();
    let layer = archive(&[(file.clone(), bytes(5000)), (dir.clone(), Vec::new())]);
    apply(&image, &layer).0.unwrap();
    image.finish().unwrap();
    let mounted = test.mount();
    for header in [&file, &dir] {
        let xattrs = crate::support::xattrs(&mounted.at(&header.path));
        assert!(xattrs == header.xattrs);
    }
    assert!(std::fs::read(mounted.at("f")).unwrap() == bytes(5000));
}

#[test]
fn attributes_that_many_have_are_shared() {
    if !can_mount() {
        return;
    }
    let entries: Vec<_> = (0..500)
        .map(|number| {
            let mut header = Header::file(format!("f{number}"), 0);
            header.xattrs.insert(b"user.common".to_vec(), bytes(900));
            header
                .xattrs
                .insert(b"user.own".to_vec(), format!("{number}").into_bytes());
            (header, Vec::new())
        })
        .collect();
    let (_, summary) = apply_to_both(&archive(&entries)).unwrap();
    assert!(summary.size_bytes < 100_000, "{summary:?}");
}

const GIB: u64 = 1 << 30;

#[test]
fn holes_take_no_room() {
    if !can_mount() || !has_sparse_tar() {
        return;
    }
    let packed = tempfile::tempdir().unwrap();
    // More than 4 GiB, whose length takes a long inode.
    let file = File::create(packed.path().join("sparse")).unwrap();
    file.set_len(5 * GIB + 100).unwrap();
    for (offset, text) in [(0, "begin"), (GIB + 5000, "middle"), (5 * GIB + 50, "end")] {
        file.write_all_at(text.as_bytes(), offset).unwrap();
    }
    let mut tar = std::process::Command::new("tar");
    let layer = tar
        .args(["-cS", "sparse"])
        .current_dir(packed.path())
        .output()
        .unwrap();
    assert!(layer.status.success());
    let test = TestImage::new();
    let image = test.begin();
    apply(&image, &layer.stdout).0.unwrap();
    let summary = image.finish().unwrap();
    assert!(summary.size_bytes > 5 * GIB);
    let allocated = test.path().metadata().unwrap().blocks() * 512;
    assert!(allocated < 1 << 20, "{allocated}");
    let mounted = test.mount_unchecked();
    let copy = File::open(mounted.at("sparse")).unwrap();
    let unpacked = tempfile::tempdir().unwrap();
    unpack_image(&test.path(), unpacked.path());
    let stat = unpacked.path().join("sparse").metadata().unwrap();
    assert_eq!(stat.len(), 5 * GIB + 100);
    assert!(stat.blocks() * 512 < 1 << 20, "a hole stays one");
    assert_eq!(copy.metadata().unwrap().len(), 5 * GIB + 100);
    for offset in [0, 4096, GIB, GIB + 4096, 4 * GIB, 5 * GIB - 4096, 5 * GIB] {
        let mut block = [0; 4096];
        let mut expected = [0; 4096];
        let length = copy.read_at(&mut block, offset).unwrap();
        assert_eq!(
            length,
            std::fs::File::open(packed.path().join("sparse"))
                .unwrap()
                .read_at(&mut expected, offset)
                .unwrap()
        );
        assert!(block == expected, "{offset}");
    }
}

fn has_sparse_tar() -> bool {
    let found = std::process::Command::new("tar")
        .arg("--version")
        .output()
        .is_ok();
    if !found {
        larder_testkit::report_skip("`tar` isn't installed");
    }
    found
}

#[test]
fn what_was_replaced_is_not_seen() {
    if !can_mount() {
        return;
    }
    let file = |path: &str, text: &str| (Header::file(path, 0), text.as_bytes().to_vec());
    let link = |path: &str, to: &str| (Header::new(path, Kind::HardLink(to.into()), 0), Vec::new());
    let dir = |path: &str| (Header::directory(path), Vec::new());
    let entries = [
        file("a", "first"),
        link("b", "a"),
        link("c", "a"),
        file("a", "second"),
        dir("d"),
        file("d/x", "gone"),
        link("kept", "d/x"),
        file("d", "instead"),
        file("once", "1"),
        file("once", "2"),
    ];
    let (found, summary) = apply_to_both(&archive(&entries)).unwrap();
    assert_eq!(found[std::path::Path::new("b")].links, Some(2));
    assert_eq!(found[std::path::Path::new("kept")].links, Some(1));
    // The root, `a`, `b` and `c`, `d`, `kept`, `once`.
    assert_eq!(summary.inode_count, 6);
}
