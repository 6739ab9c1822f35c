//! A compressor for deflate (RFC 1951) that is made for speed: one look-up a position, one tree a
//! block, and stored blocks for what doesn't compress.
//!
//! It takes a whole chunk at a time, and what it writes depends on nothing but that chunk.

mod bits;
mod huffman;
mod matches;

use bits::BitWriter;
use huffman::Codes;
use matches::{Finder, Match};

/// Names the compressor and how it is driven. It changes whenever equal input makes other output.
pub(super) const FORMAT: &str = "larder deflate 1";

/// Bytes of input in a block. Smaller ones follow the content more closely, and each costs a tree.
const BLOCK_BYTES: usize = 64 << 10;

/// A stored block's length has 16 bits.
const MAX_STORED_BYTES: usize = 65535;

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

/// The longest code of either alphabet.
const MAX_CODE_BITS: usize = 15;

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
        out.stored_header(&[]);
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
            for part in self.bytes.chunks(MAX_STORED_BYTES) {
                out.stored_header(part);
                out.bytes(part);
            }
        } else {
            out.reserve_bits(coded_bits);
            codes.write_header(out);
            self.write_symbols(&codes, out);
        }
    }

    /// Counts how often each symbol of the two alphabets occurs.
    fn count(&self) -> ([u32; LENGTH_SYMBOLS], [u32; DISTANCE_SYMBOLS]) {
        let mut lengths = [0; LENGTH_SYMBOLS];
        let mut distances = [0; DISTANCE_SYMBOLS];
        // Four counters a byte: runs of one byte would wait for their own counter otherwise.
        let mut literals = [[0_u32; 256]; 4];
        self.for_each(
            |bytes| {
                let mut quads = bytes.chunks_exact(4);
                for quad in &mut quads {
                    for (counters, byte) in literals.iter_mut().zip(quad) {
                        counters[usize::from(*byte)] += 1;
                    }
                }
                for byte in quads.remainder() {
                    literals[0][usize::from(*byte)] += 1;
                }
            },
            |found| {
                lengths[FIRST_LENGTH + usize::from(found.length_symbol())] += 1;
                distances[usize::from(found.distance_symbol())] += 1;
            },
        );
        for (byte, count) in lengths.iter_mut().take(256).enumerate() {
            *count = literals.iter().map(|counters| counters[byte]).sum();
        }
        lengths[END_OF_BLOCK] = 1;
        (lengths, distances)
    }

    fn write_symbols(&self, codes: &Codes, out: &mut BitWriter) {
        let literals = codes.literals();
        let out = std::cell::RefCell::new(out);
        self.for_each(
            |bytes| {
                let out = &mut *out.borrow_mut();
                let mut triples = bytes.chunks_exact(3);
                for triple in &mut triples {
                    for byte in triple {
                        out.push(literals[usize::from(*byte)]);
                    }
                    out.flush();
                }
                for byte in triples.remainder() {
                    out.push(literals[usize::from(*byte)]);
                }
                out.flush();
            },
            |found| {
                let out = &mut *out.borrow_mut();
                out.push(codes.length(found));
                out.push(found.length_extra());
                out.push(codes.distance(found));
                out.push(found.distance_extra());
                out.flush();
            },
        );
        let out = out.into_inner();
        out.push(codes.end_of_block());
        out.flush();
    }

    /// Calls one or the other for each run of literals and each match, in their order.
    fn for_each(&self, mut literals: impl FnMut(&[u8]), mut matched: impl FnMut(&Match)) {
        let mut rest = self.bytes;
        for found in self.matches {
            let (run, after) = rest.split_at(found.literals());
            literals(run);
            matched(found);
            rest = &after[found.length()..];
        }
        literals(rest);
    }
}

#[cfg(test)]
#[path = "deflate_tests.rs"]
mod tests;
