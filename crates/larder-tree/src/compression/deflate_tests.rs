//! What the compressor writes is read back by flate2's decoder, which is not ours.

use std::io::Read;

use proptest::prelude::*;

use super::window::Window;
use super::{BLOCK_BYTES, Deflater};

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
    let text = text.repeat(10 * BLOCK_BYTES / text.len() + 1);
    let around_blocks = (1..=9).flat_map(|block| {
        let end = block * BLOCK_BYTES;
        [
            end - 33,
            end - 32,
            end - 1,
            end,
            end + 1,
            end + 31,
            end + 32,
        ]
    });
    for length in (0..300).chain([4095]).chain(around_blocks) {
        check(&vec![b'a'; length]);
        check(&noise(length));
        check(&text[..length]);
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

#[test]
fn more_than_a_window_comes_back() {
    let text = include_bytes!("deflate.rs");
    let text = text.repeat(3 * Window::MAX_BYTES / text.len());
    for length in [
        Window::MAX_BYTES - 1,
        Window::MAX_BYTES,
        Window::MAX_BYTES + 1,
        2 * Window::MAX_BYTES + 77,
    ] {
        check(&text[..length]);
    }
}

#[test]
fn an_input_does_not_show_in_what_the_next_becomes() {
    let (text, random) = (include_bytes!("deflate.rs"), noise(200_000));
    let alone = Deflater::default().compress(text);
    let mut deflater = Deflater::default();
    for before in [&random[..], &text.repeat(90), &vec![0; 1 << 19]] {
        deflater.compress(before);
        assert!(deflater.compress(text) == alone);
    }
}

#[test]
fn what_is_compressed_already_is_stored_but_not_what_repeats() {
    let random = noise(300_000);
    let kept = check(&random);
    assert!(kept >= random.len() && kept < random.len() + 60, "{kept}");
    for period in [700, 4096, 5003, 30_001] {
        let repeated = random[..period].repeat(random.len() / period);
        let packed = check(&repeated);
        assert!(packed < random.len() / 2, "{period}: {packed}");
    }
    // Few enough repetitions to be overlooked cost no more than being stored.
    let mut rare = random.clone();
    rare.copy_within(100_000..100_100, 110_000);
    assert!(check(&rare) < rare.len() + 60);
}

#[test]
fn codes_of_every_length_and_distance_come_back() {
    // Each length and each distance symbol, between bytes that occur once.
    let random = noise(40_000);
    for length in (4..262)
        .step_by(3)
        .chain([257, 258, 259, 260, 516, 517, 519])
    {
        for log in 0..15 {
            for distance in [1 << log, (1 << log) + 1, (3 << log) / 2, (2 << log) - 1] {
                let mut input = random[..distance.max(300)].to_vec();
                let from = input.len() - distance;
                for at in from..from + length {
                    input.push(input[at]);
                }
                input.extend(&random[39_000..39_040]);
                check(&input);
            }
        }
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
