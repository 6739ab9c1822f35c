//! The shapes of trees: names, directories, links and devices.

use std::path::{Path, PathBuf};

use larder_tree::tar::{Header, Kind};
use rustix::fs::Timespec;

use crate::support::{TIME, TestImage, apply, apply_to_both, archive, can_mount, name};

type Entry = (Header, Vec<u8>);

fn file(path: impl Into<PathBuf>) -> Entry {
    (Header::file(path, 0), b"text".to_vec())
}

fn dir(path: impl Into<PathBuf>) -> Entry {
    (Header::directory(path), Vec::new())
}

#[test]
fn directories_of_any_size_are_searched() {
    if !can_mount() {
        return;
    }
    let mut entries = vec![dir("d")];
    // Names of all lengths, before and behind the dots.
    for number in 0..3000_usize {
        let fill = "x".repeat(number * 7 % 240);
        let first = ["!", "a", "\u{e4}", "~"][number % 4];
        entries.push(file(format!("d/{first}{number}{fill}")));
    }
    let layer = archive(&entries);
    apply_to_both(&layer).unwrap();

    let test = TestImage::new();
    let image = test.begin();
    apply(&image, &layer).0.unwrap();
    image.finish().unwrap();
    let mounted = test.mount();
    for (header, _) in &entries {
        assert!(mounted.at(&header.path).symlink_metadata().is_ok());
        let missing = format!("{}-", header.path.display());
        assert!(mounted.at(missing).symlink_metadata().is_err());
    }
}

#[test]
fn directories_that_fill_their_last_block_are_kept() {
    if !can_mount() {
        return;
    }
    // The dots take 27 bytes, each further name 16; 254 fill a block but for 5 bytes.
    for count in [253, 254, 255, 256, 510, 511] {
        let mut entries = vec![dir("d")];
        entries.extend((0..count).map(|number| file(format!("d/{number:04}"))));
        // Names of 9 bytes more than fill the rest.
        entries.push(file(format!("d/{}", "z".repeat(count % 10 + 1))));
        apply_to_both(&archive(&entries)).unwrap();
    }
}

#[test]
fn names_are_any_bytes() {
    if !can_mount() {
        return;
    }
    let names: Vec<Vec<u8>> = vec![
        b"\xff\xfe".to_vec(),
        b"\x01".to_vec(),
        b" ".to_vec(),
        b"...".to_vec(),
        b"-".to_vec(),
        b"a\nb".to_vec(),
        vec![b'\xc3'; 255],
        vec![b'y'; 255],
    ];
    let mut entries = Vec::new();
    for bytes in names {
        let path = PathBuf::from(name(bytes));
        entries.push(dir(&path));
        entries.push(file(path.join(name(b"\xe9t\xe9"))));
    }
    apply_to_both(&archive(&entries)).unwrap();
}

#[test]
fn everything_that_is_no_file_is_kept() {
    if !can_mount() {
        return;
    }
    let special = |path: &str, kind| (Header::new(path, kind, 0o640), Vec::new());
    let mut entries = vec![
        special("null", Kind::CharDevice(1, 3)),
        special("large", Kind::CharDevice(4095, 0x000f_ffff)),
        special("disk", Kind::BlockDevice(8, 0x123)),
        special("pipe", Kind::Fifo),
        special("again", Kind::HardLink("pipe".into())),
        special("short", Kind::Symlink("a".into())),
        special("long", Kind::Symlink("b/".repeat(2000).into())),
        special("same", Kind::HardLink("short".into())),
        (Header::file(".wh.gone", 0), Vec::new()),
        dir("opaque"),
        (Header::file("opaque/.wh..wh..opq", 0), Vec::new()),
        file("run"),
    ];
    for (number, (header, _)) in entries.iter_mut().enumerate() {
        header.uid = number as u32 * 20_000;
        header.gid = u32::MAX - 1 - number as u32;
        header.mtime = Timespec {
            tv_sec: TIME - number as i64,
            tv_nsec: 0,
        };
    }
    let capability = b"\x01\0\0\x02\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let run = entries.last_mut().unwrap();
    run.0.mode = 0o6755;
    run.0
        .xattrs
        .insert(b"security.capability".to_vec(), capability);
    let (found, _) = apply_to_both(&archive(&entries)).unwrap();
    assert_eq!(found[Path::new("pipe")].links, Some(2));
    let marks = &found[Path::new("opaque")].xattrs;
    assert_eq!(marks[&b"trusted.overlay.opaque"[..]], b"y");
}

#[test]
fn inodes_that_fill_a_block_are_read_by_all() {
    if !can_mount() {
        return;
    }
    // Short inodes alone, 128 of which fill the image's last block.
    for count in 126..=130 {
        let empty = |number| (Header::file(format!("{number}"), 0), Vec::new());
        let entries: Vec<Entry> = (0..count).map(empty).collect();
        apply_to_both(&archive(&entries)).unwrap();
    }
}

#[test]
fn deep_trees_are_kept() {
    if !can_mount() {
        return;
    }
    apply_to_both(&archive(&[file(format!("{}f", "d/".repeat(300)))])).unwrap();
    let deep = "d/".repeat(1900);
    let test = TestImage::new();
    let image = test.begin();
    apply(&image, &archive(&[file(format!("{deep}f"))]))
        .0
        .unwrap();
    image.finish().unwrap();
    // fsck.erofs calls itself for each level, and has no stack for that many.
    let mounted = test.mount_unchecked();
    assert_eq!(
        std::fs::read(mounted.at(format!("{deep}f"))).unwrap(),
        b"text"
    );
    drop(mounted);
    // A path that no system call takes, by way of a link.
    let link = Header::new("l", Kind::Symlink(deep.clone().into()), 0o777);
    let deeper = format!("l/{}f", "e/".repeat(1500));
    let entries = [dir(&deep), (link, Vec::new()), file(deeper)];
    assert!(apply_to_both(&archive(&entries)).is_none());
}

#[test]
fn more_subdirectories_than_16_bits_count_are_kept() {
    use std::os::unix::fs::MetadataExt;
    if !can_mount() {
        return;
    }
    let count = 65_600;
    let entries: Vec<_> = (0..count)
        .map(|number| dir(format!("d/{number}")))
        .collect();
    let test = TestImage::new();
    let image = test.begin();
    apply(&image, &archive(&entries)).0.unwrap();
    let summary = image.finish().unwrap();
    assert_eq!(summary.inode_count, count + 2);
    let mounted = test.mount();
    assert_eq!(mounted.at("d").metadata().unwrap().nlink(), count + 2);
    assert!(mounted.at("d/65599").is_dir());
}

#[test]
fn the_same_tree_is_the_same_image() {
    let entries = [dir("d"), file("d/a"), file("b"), dir("e")];
    let write = || {
        let test = TestImage::new();
        let image = test.begin();
        apply(&image, &archive(&entries)).0.unwrap();
        image.finish().unwrap();
        std::fs::read(test.path()).unwrap()
    };
    let image = write();
    assert!(image == write());
    assert_ne!(image[1024 + 48..1024 + 64], [0; 16], "the UUID");
}

#[test]
fn an_image_is_none_before_it_is_finished() {
    let test = TestImage::new();
    let image = test.begin();
    let entries = [(Header::file("f", 0), vec![b'x'; 3 << 20])];
    apply(&image, &archive(&entries)).0.unwrap();
    let written = std::fs::read(test.path()).unwrap();
    assert!(written.len() > 1 << 20);
    assert!(written[..4096].iter().all(|byte| *byte == 0));
}
