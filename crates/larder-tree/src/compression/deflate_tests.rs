//! What the compressor writes is read back by flate2's decoder, which is not ours.

use std::io::Read;

use proptest::prelude::*;

use super::Deflater;

/// Decodes blocks that don't end the data.
fn inflate(packed: &[u8]) -> Vec<u8> {
    let mut whole = packed.to_vec();
    whole.extend([3, 0]);
    let mut bytes = Vec::new();
    let mut decoder = flate2::read::DeflateDecoder::new(&whole[..]);
    decoder.read_to_end(&mut bytes).unwrap();
    bytes
}

fn check(input: &[u8]) -> usize {
    let mut deflater = Deflater::default();
    let packed = deflater.compress(input);
    assert!(inflate(&packed) == input, "{} bytes differ", input.len());
    assert!(
        deflater.compress(input) == packed,
        "other bytes the second time"
    );
    packed.len()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

#[test]
fn any_length_comes_back() {
    let text = include_bytes!("deflate.rs");
    for length in (0..300).chain([4095, 65535, 65536, 65537]) {
        check(&vec![b'a'; length]);
        check(&noise(length));
        check(&text.repeat(20)[..length]);
    }
}

#[test]
fn what_repeats_becomes_small_and_what_does_not_stays() {
    assert!(check(&vec![0; 1 << 19]) < 1 << 10);
    let random = noise(1 << 19);
    assert!(check(&random) < random.len() + 100);
    let text = include_bytes!("deflate.rs");
    assert!(check(text) < text.len() / 2);
    // Each byte's frequency is twice that of the next: the longest codes must be cut.
    let skewed: Vec<u8> = (0..24_u32)
        .flat_map(|byte| vec![byte as u8; 1 << (byte * 2 / 3)])
        .collect();
    assert!(check(&skewed) < skewed.len() / 2);
    // Matches at the largest distance, and beyond.
    for gap in [32764, 32768, 32769, 40000] {
        check(
            &[
                &b"0123456789abcdef"[..],
                &noise(gap - 16),
                b"0123456789abcdef",
            ]
            .concat(),
        );
    }
}

proptest! {
    #[test]
    fn any_content_comes_back(
        parts in prop::collection::vec((any::<u8>(), 1..2000_usize, 0..4_u8), 0..60),
    ) {
        let mut input: Vec<u8> = Vec::new();
        for (byte, length, kind) in parts {
            match kind {
                0 => input.extend(vec![byte; length]),
                1 => input.extend(noise(length).iter().map(|noise| noise ^ byte)),
                2 => input.extend(noise(length).iter().map(|noise| noise & byte)),
                _ => {
                    let from = input.len().saturating_sub(length * 17);
                    let to = input.len().min(from + length);
                    input.extend_from_within(from..to);
                }
            }
        }
        check(&input);
    }
}
