//! Images that are damaged or forged, which are read without the kernel: an error, or some layer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use larder_tree::ErrorKind;
use larder_tree::apply::{ApplyOptions, LayerForm, apply_image};
use larder_tree::beneath::Root;
use larder_tree::diff::{LayerOptions, LayerStats, Style, write_layer};
use larder_tree::erofs::Reader;
use larder_tree::tar::{Header, Kind};

use crate::support::{TestImage, apply, archive};

/// Where the superblock is, where it has its checksum, and the number of the root's inode behind it.
const SUPERBLOCK: usize = 1024;
const CHECKSUM: std::ops::Range<usize> = SUPERBLOCK + 4..SUPERBLOCK + 8;
const ROOT: u64 = 36;
const BLOCK: usize = 4096;

/// Makes an image of everything that there is; returns its bytes.
fn image() -> Vec<u8> {
    let mut entries = Vec::new();
    for number in 0..40_usize {
        let mut file = Header::file(format!("d{}/f{number}", number % 3), 0);
        file.mtime.tv_sec = number as i64 % 2;
        for shared in 0..number % 3 {
            let name = format!("user.{shared}").into_bytes();
            file.xattrs.insert(name, vec![7; 30 * shared]);
        }
        entries.push((file, vec![number as u8; number * number * 7]));
    }
    let of = |path: &str, kind: Kind| (Header::new(path, kind, 0o644), Vec::new());
    entries.extend([
        of("link", Kind::Symlink("target".into())),
        of("other", Kind::HardLink("d1/f1".into())),
        of("device", Kind::BlockDevice(8, 300)),
        of("d0/.wh..wh..opq", Kind::File),
        of("d1/.wh.gone", Kind::File),
        of("d2/e/f/g", Kind::Directory),
    ]);
    let test = TestImage::new();
    let image = test.begin();
    apply(&image, &archive(&entries)).0.unwrap();
    image.finish().unwrap();
    std::fs::read(test.path()).unwrap()
}

/// Gives the superblock the checksum that it wants.
fn seal(image: &mut [u8]) {
    let Some(block) = image.get_mut(..BLOCK) else {
        return;
    };
    block[CHECKSUM].fill(0);
    let checksum = block[SUPERBLOCK..].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    });
    block[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

fn pack(dir: &Path, image: &[u8]) -> larder_tree::Result<LayerStats> {
    let path = dir.join("image");
    let file = File::create(&path).unwrap();
    file.write_all_at(image, 0).unwrap();
    let reader = Reader::open(File::open(&path).unwrap())?;
    unpack(&reader, &dir.join("unpacked"));
    write_layer(
        &reader,
        None,
        Style::Overlay,
        io::sink(),
        &LayerOptions::default(),
    )
}

/// Unpacks an image, whatever comes of it.
fn unpack(image: &Reader, dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let mut ignore = |_| {};
    let root = Root::open(dir).unwrap();
    let options = ApplyOptions::new(&mut ignore);
    if let Err(error) = apply_image(&root, image, LayerForm::Overlay, options) {
        assert!(!error.to_string().is_empty());
    }
    drop(root);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn damage_makes_no_reader_panic_or_run_on() {
    let dir = tempfile::tempdir().unwrap();
    let whole = image();
    assert!(pack(dir.path(), &whole).unwrap().entries > 40);
    let mut seed = 11_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed as usize >> 8
    };
    let mut failed = 0;
    for round in 0..600 {
        let mut image = whole.clone();
        for _ in 0..=next() % 5 {
            let at = next() % image.len();
            match next() % 3 {
                0 => image[at] = next() as u8,
                1 => image[at] ^= 1 << (next() % 8),
                // A small number: of an inode, a block, an offset.
                _ => {
                    let at = at / 4 * 4;
                    image[at..at + 4].copy_from_slice(&(next() as u32 % 2000).to_le_bytes());
                }
            }
        }
        if round % 10 == 0 {
            image.truncate(next() % image.len());
        }
        if round % 20 != 1 {
            seal(&mut image);
        }
        if let Err(error) = pack(dir.path(), &image) {
            failed += 1;
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
    assert!((60..600).contains(&failed), "{failed} images were refused");
}

#[test]
fn a_directory_in_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let test = TestImage::new();
    let image = test.begin();
    let entries = [
        (Header::directory("a"), Vec::new()),
        (Header::directory("b"), Vec::new()),
    ];
    apply(&image, &archive(&entries)).0.unwrap();
    image.finish().unwrap();
    let whole = std::fs::read(test.path()).unwrap();
    // `.`, `..`, `a` and `b`, behind their entries of 12 bytes.
    let names = whole
        .windows(5)
        .position(|bytes| bytes == b"...ab")
        .unwrap();
    let [a, b] = [names - 24, names - 12];
    for (to, number) in [
        (a, ROOT.to_le_bytes()),
        (b, whole[a..a + 8].try_into().unwrap()),
    ] {
        let mut image = whole.clone();
        image[to..to + 8].copy_from_slice(&number);
        seal(&mut image);
        let error = pack(dir.path(), &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("has two names"), "{error}");
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = image();
    let mut unsealed = whole.clone();
    unsealed[CHECKSUM.start] ^= 1;
    for (bytes, reason) in [
        (&whole[..100], "cannot read the image of a layer"),
        (&vec![0; BLOCK][..], "it has no superblock"),
        (&unsealed[..], "it has no superblock"),
        (&whole[..whole.len() - 1], "its end is missing"),
    ] {
        let error = pack(dir.path(), bytes).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        let text = format!("{error}: {source}");
        assert!(text.contains(reason), "{text}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
    }
}
