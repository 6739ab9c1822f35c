//! A compressor for deflate (RFC 1951) that is made for speed: one look-up a position, one tree a
//! block, and stored blocks for what doesn't compress.
//!
//! It takes a whole chunk at a time, and what it writes depends on nothing but that chunk. A block
//! goes through three loops, each without branches that can't be foreseen, as far as that can be:
//! from bytes to tokens, from tokens to their frequencies, and from tokens to bits.
#![expect(
    clippy::inline_always,
    reason = "what is called once a byte costs a third more where it is called for"
)]

mod bits;
mod finder;
mod huffman;
mod noise;
mod token;
mod tokens;
mod window;

use bits::{BitWriter, Cursor};
use finder::Finder;
use huffman::Codes;
use noise::is_noise;
use token::{FIRST_LENGTH, length_code};
use tokens::Tokens;
use window::Window;

/// Names the compressor and how it is driven. It changes whenever equal input makes other output.
pub(super) const FORMAT: &str = "larder deflate 2";

/// Bytes of input in a block: as many as one stored block holds. Smaller ones would follow the
/// content more closely, and each costs a tree.
const BLOCK_BYTES: usize = 65535;

/// A block that would save less than one byte in this many is stored: reading it back is free.
const WORTHWHILE: usize = 40;

/// The literal/length symbol that ends a block.
const END_OF_BLOCK: usize = 256;

/// How many literal/length symbols there are.
const LENGTH_SYMBOLS: usize = 286;

/// How many distance symbols there are.
const DISTANCE_SYMBOLS: usize = 30;

/// The longest code of either alphabet. Deflate allows 15; decoders read short ones faster.
const MAX_CODE_BITS: usize = 12;

/// Compresses chunks, one at a time. Made once for many: it keeps its tables.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    window: Window,
    finder: Finder,
    tokens: Tokens,
    out: BitWriter,
}

impl Deflater {
    /// Compresses `input` to blocks of deflate that neither refer back nor end the data, and that
    /// end at the edge of a byte.
    pub(super) fn compress(&mut self, input: &[u8]) -> Vec<u8> {
        self.out.reserve(input.len() / 2);
        for part in input.chunks(Window::MAX_BYTES) {
            self.window.fill(part);
            self.finder.reset();
            let mut start = 0;
            while start < part.len() {
                let end = part.len().min(start + BLOCK_BYTES);
                self.write_block(start, end);
                start = end;
            }
        }
        self.out.stored(&[]);
        self.out.finish()
    }

    fn write_block(&mut self, start: usize, end: usize) {
        let bytes = self.window.bytes(start, end);
        if is_noise(bytes) {
            return self.out.stored(bytes);
        }
        self.finder.find(&self.window, start, end, &mut self.tokens);
        let tokens = &self.tokens;
        Block { bytes, tokens }.write(&mut self.out);
    }
}

/// Part of the input, and the tokens that say it.
struct Block<'a> {
    bytes: &'a [u8],
    tokens: &'a Tokens,
}

impl Block<'_> {
    fn write(&self, out: &mut BitWriter) {
        let (lengths, distances) = self.count();
        let codes = Codes::new(&lengths, &distances);
        let stored_bits = (self.bytes.len() + 5) * 8;
        let coded_bits = codes.cost_bits(&lengths, &distances);
        if coded_bits + stored_bits / WORTHWHILE > stored_bits {
            out.stored(self.bytes);
        } else {
            out.write(|out| {
                codes.write_header(out);
                self.write_tokens(&codes, out);
            });
        }
    }

    /// Counts how often each symbol of the two alphabets occurs.
    fn count(&self) -> ([u32; LENGTH_SYMBOLS], [u32; DISTANCE_SYMBOLS]) {
        let mut lengths = [0; LENGTH_SYMBOLS];
        let mut distances = [0; DISTANCE_SYMBOLS];
        for (first, count) in self.tokens.firsts.iter().enumerate() {
            let symbol = match first.checked_sub(256) {
                None => first,
                Some(length) => FIRST_LENGTH + usize::from(length_code(length as u8).0),
            };
            lengths[symbol] += count;
        }
        lengths[END_OF_BLOCK] = 1;
        distances.copy_from_slice(&self.tokens.seconds[1..=DISTANCE_SYMBOLS]);
        (lengths, distances)
    }

    fn write_tokens(&self, codes: &Codes, out: &mut Cursor<'_>) {
        let table = codes.table();
        let mut pairs = self.tokens.as_slice().chunks_exact(2);
        for pair in &mut pairs {
            let (first, first_count) = table.bits(pair[0]);
            let (second, second_count) = table.bits(pair[1]);
            if first_count + second_count <= Cursor::MOST_BITS {
                out.push_wide(first | second << first_count, first_count + second_count);
            } else {
                out.push_wide(first, first_count);
                out.flush();
                out.push_wide(second, second_count);
            }
            out.flush();
        }
        for token in pairs.remainder() {
            let (bits, count) = table.bits(*token);
            out.push_wide(bits, count);
            out.flush();
        }
        out.push(codes.end_of_block());
        out.flush();
    }
}

#[cfg(test)]
#[path = "deflate_tests.rs"]
mod tests;
