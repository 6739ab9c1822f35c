//! What our compressor makes, others read, however many threads made it; and what comes compressed
//! from elsewhere is read or refused.
#![no_main]

use std::io::{Read as _, Write as _};

use larder_tree::compression::{Compression, Decoder, Encoder};
use libfuzzer_sys::fuzz_target;

/// More of a hostile stream is not read.
const MAX_BYTES: u64 = 4 << 20;

fn compressed(data: &[u8], threads: usize) -> Vec<u8> {
    let encoder = Encoder::new(Vec::new(), Compression::gzip(), threads);
    let mut encoder = encoder.expect("an encoder");
    encoder.write_all(data).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fuzz_target!(|input: &[u8]| {
    let mut hostile = Vec::new();
    if let Ok(decoder) = Decoder::new(input) {
        let _ = decoder.with_limit(MAX_BYTES).read_to_end(&mut hostile);
    }
    // Chunks are large: repeated, small inputs reach their edges.
    let repeats = input.first().map_or(1, |byte| usize::from(*byte) * 32 + 1);
    let data = input.repeat(repeats.min((1 << 20) / input.len().max(1) + 1));
    let stream = compressed(&data, 1);
    assert_eq!(
        stream,
        compressed(&data, 3),
        "the same bytes at any number of threads"
    );
    let mut read = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(stream.as_slice());
    decoder.read_to_end(&mut read).expect("one gzip member");
    assert!(read == data, "what was written");
});
