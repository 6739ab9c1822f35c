//! A compressor for deflate (RFC 1951) that is made for speed: one look-up a position, one tree a
//! block, and stored blocks for what doesn't compress.
//!
//! It takes a whole chunk at a time, and what it writes depends on nothing but that chunk.

mod bits;
mod huffman;
mod matches;

use bits::{BitWriter, Bits, Cursor};
use huffman::Codes;
use matches::{Finder, Match};

/// Names the compressor and how it is driven. It changes whenever equal input makes other output.
pub(super) const FORMAT: &str = "larder deflate 1";

/// Bytes of input in a block: as many as one stored block holds. Smaller ones would follow the
/// content more closely, and each costs a tree.
const BLOCK_BYTES: usize = 65535;

/// A block that would save less than one byte in this many is stored: reading it back is free.
const WORTHWHILE: usize = 40;

/// The literal/length symbol that ends a block.
const END_OF_BLOCK: usize = 256;

/// The literal/length symbol of the shortest match.
const FIRST_LENGTH: usize = 257;

/// How many literal/length symbols there are.
const LENGTH_SYMBOLS: usize = 286;

/// How many distance symbols there are.
const DISTANCE_SYMBOLS: usize = 30;

/// The longest code of either alphabet. Deflate allows 15; with 12, four literals are written at
/// a time.
const MAX_CODE_BITS: usize = 12;

/// How many literals are written at a time.
const LITERALS_AT_ONCE: usize = 4;

/// Compresses chunks, one at a time. Made once for many: it keeps its tables.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    finder: Finder,
    found: Vec<Match>,
}

impl Deflater {
    /// Compresses `input` to blocks of deflate that neither refer back nor end the data, and that
    /// end at the edge of a byte.
    pub(super) fn compress(&mut self, input: &[u8]) -> Vec<u8> {
        let mut out = BitWriter::with_capacity(input.len() / 2);
        self.finder.reset();
        let mut start = 0;
        while start < input.len() {
            let end = input.len().min(start + BLOCK_BYTES);
            self.found.clear();
            self.finder.find(input, start, end, &mut self.found);
            let block = Block {
                bytes: &input[start..end],
                matches: &self.found,
            };
            block.write(&mut out);
            start = end;
        }
        out.stored(&[]);
        out.finish()
    }
}

/// Part of the input, and what of it is said by pointing back.
struct Block<'a> {
    bytes: &'a [u8],
    matches: &'a [Match],
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
            out.with_room(coded_bits, |out| {
                codes.write_header(out);
                self.write_symbols(&codes, out);
            });
        }
    }

    /// Counts how often each symbol of the two alphabets occurs.
    fn count(&self) -> ([u32; LENGTH_SYMBOLS], [u32; DISTANCE_SYMBOLS]) {
        let mut lengths = [0; LENGTH_SYMBOLS];
        let mut distances = [0; DISTANCE_SYMBOLS];
        // Several counters a byte: runs of one byte would wait for their own counter otherwise.
        let mut literals = [[0_u32; 256]; 2];
        let mut rest = self.bytes;
        for &found in self.matches {
            count_bytes(rest, found.literals(), &mut literals);
            lengths[FIRST_LENGTH + usize::from(found.length_symbol())] += 1;
            distances[usize::from(found.distance_symbol)] += 1;
            rest = &rest[found.literals() + found.length()..];
        }
        count_bytes(rest, rest.len(), &mut literals);
        for (byte, count) in lengths.iter_mut().take(256).enumerate() {
            *count = literals.iter().map(|counters| counters[byte]).sum();
        }
        lengths[END_OF_BLOCK] = 1;
        (lengths, distances)
    }

    fn write_symbols(&self, codes: &Codes, out: &mut Cursor<'_>) {
        let literals = codes.literals();
        let lengths = codes.lengths();
        let mut rest = self.bytes;
        for &found in self.matches {
            write_bytes(rest, found.literals(), literals, out);
            out.push(lengths[usize::from(found.length)]);
            out.push(codes.distance(found));
            out.flush();
            rest = &rest[found.literals() + found.length()..];
        }
        write_bytes(rest, rest.len(), literals, out);
        out.push(codes.end_of_block());
        out.flush();
    }
}

/// Counts the first `length` of `bytes`.
#[inline]
fn count_bytes(bytes: &[u8], length: usize, counters: &mut [[u32; 256]; 2]) {
    for_each_group(bytes, length, |group, count| {
        for (position, byte) in group.iter().enumerate() {
            counters[position % 2][usize::from(*byte)] += u32::from(position < count);
        }
    });
}

/// Writes the first `length` of `bytes`.
#[inline]
fn write_bytes(bytes: &[u8], length: usize, literals: &[Bits; 256], out: &mut Cursor<'_>) {
    for_each_group(bytes, length, |group, count| {
        for (position, byte) in group.iter().enumerate() {
            out.push(literals[usize::from(*byte)].only_if(position < count));
        }
        out.flush();
    });
}

/// Calls `visit` with groups of bytes, and how many of each count: all but in the last group.
///
/// Most runs of literals are shorter than a group. Where they end can't be foreseen, and a
/// processor that guesses wrong loses more time than work on bytes that don't count takes.
#[inline]
fn for_each_group(
    bytes: &[u8],
    length: usize,
    mut visit: impl FnMut(&[u8; LITERALS_AT_ONCE], usize),
) {
    let mut rest = bytes;
    let mut left = length;
    while let Some((group, after)) = rest.split_first_chunk::<LITERALS_AT_ONCE>() {
        visit(group, left);
        if left <= LITERALS_AT_ONCE {
            return;
        }
        left -= LITERALS_AT_ONCE;
        rest = after;
    }
    if left > 0 {
        let mut last = [0; LITERALS_AT_ONCE];
        last[..left].copy_from_slice(&rest[..left]);
        visit(&last, left);
    }
}

#[cfg(test)]
#[path = "deflate_tests.rs"]
mod tests;
