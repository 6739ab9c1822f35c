//! An image, whose checksum is set right, is packed as a layer without being mounted: what comes out is an archive.
#![no_main]

use std::io::Write as _;

use larder_tree::diff::{LayerOptions, Style, write_layer};
use larder_tree::erofs::Reader;
use larder_tree::tar;
use libfuzzer_sys::fuzz_target;

/// Where the superblock begins, where the block that it is in ends, and where the checksum lies.
const SUPERBLOCK: usize = 1024;
const BLOCK: usize = 4096;
const CHECKSUM: std::ops::Range<usize> = SUPERBLOCK + 4..SUPERBLOCK + 8;

/// A layer may be as often as large as the image, for one block can be part of many files.
const MAX_BYTES: usize = 64 << 20;

/// Takes so much, and no more.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    })
}

fuzz_target!(|input: &[u8]| {
    let mut image = input.to_vec();
    if let Some(block) = image.get_mut(..BLOCK) {
        block[CHECKSUM].fill(0);
        let sum = crc32c(&block[SUPERBLOCK..]);
        block[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }
    let mut file = tempfile::tempfile_in("/dev/shm").expect("a temporary file");
    file.write_all(&image).expect("the image");
    let Ok(reader) = Reader::open(file) else {
        return;
    };
    for style in [Style::Overlay, Style::Tree] {
        let mut layer = Bounded(Vec::new());
        if write_layer(&reader, None, style, &mut layer, &LayerOptions::default()).is_ok() {
            let mut archive = tar::Reader::new(&layer.0[..]);
            while archive.next_entry().expect("an entry").is_some() {}
        }
    }
});
