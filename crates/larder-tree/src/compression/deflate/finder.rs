use std::hint::select_unpredictable;

use super::token::{LONGEST, MAX_DISTANCE, SHORTEST};
use super::tokens::Tokens;
use super::window::Window;

/// Logarithm of the number of places that are remembered: as many as the fastest cache of a
/// processor has room for beside all else.
const TABLE_BITS: u32 = 13;

/// How many bytes there must be for a look-up, which may read as many at once.
const READ_BYTES: usize = 32;

/// After so many literals in a row, positions are passed over: more of them, the longer nothing is
/// found.
const PATIENCE: usize = 32;

/// So many literals in a row let one position more be passed over.
const LITERALS_PER_STEP: usize = 16;

/// The most by which a look-up goes on.
const MAX_STEP: usize = 8;

/// Finds matches: of the places where four bytes stood before, the last one is remembered. Deflate
/// knows shorter matches, but they rarely pay.
#[derive(Debug)]
pub(super) struct Finder {
    /// The low 16 bits of positions, by a hash of what stands there. Whatever is in here is only
    /// a guess: the bytes decide.
    table: Box<[u16; 1 << TABLE_BITS]>,
}

impl Default for Finder {
    fn default() -> Self {
        let table = vec![0; 1 << TABLE_BITS].into_boxed_slice();
        Self {
            table: table.try_into().expect("it has this length"),
        }
    }
}

impl Finder {
    /// Forgets the last input, so that what is found in the next doesn't depend on it.
    pub(super) fn reset(&mut self) {
        self.table.fill(0);
    }

    /// Says the input from `start` to `end`, no more than [`BLOCK_BYTES`](super::BLOCK_BYTES), by
    /// tokens, which may point to before `start`.
    #[inline(never)]
    pub(super) fn find(&mut self, input: &Window, start: usize, end: usize, tokens: &mut Tokens) {
        let table = &mut *self.table;
        let mut tokens = tokens.restart();
        let mut at = start;
        let mut literals_from = start;
        while at + READ_BYTES <= end {
            let word = input.word(at);
            let distance = remember(table, at, word);
            let next_word = input.word(at + 1);
            let next_distance = remember(table, at + 1, next_word);
            let difference = input.word(at.wrapping_sub(distance)) ^ word;
            let next_difference = input.word((at + 1).wrapping_sub(next_distance)) ^ next_word;
            let (distance, difference) = if is_match(distance, difference) {
                (distance, difference)
            } else {
                tokens.literal(word as u8);
                at += 1;
                if !is_match(next_distance, next_difference) {
                    tokens.literal(next_word as u8);
                    at += 1;
                    let literals = at - literals_from;
                    if literals >= PATIENCE {
                        let passed = (literals / LITERALS_PER_STEP).min(MAX_STEP) - 2;
                        for byte in &(next_word >> 8).to_le_bytes()[..passed] {
                            tokens.literal(*byte);
                        }
                        at += passed;
                    }
                    continue;
                }
                (next_distance, next_difference)
            };
            let from = at.wrapping_sub(distance);
            // Most matches are short: up to here, their length takes no branch.
            let more = input.word(from + 8) ^ input.word(at + 8);
            let more = 8 + (more.trailing_zeros() / 8) as usize;
            let length = (difference.trailing_zeros() / 8) as usize;
            let mut length = select_unpredictable(difference == 0, more, length);
            if length == 16 {
                length += common(input, from + 16, at + 16, end);
            }
            let mut first = at;
            if at - literals_from >= PATIENCE {
                // What was passed over may belong to it, too.
                let difference = input.word_before(from) ^ input.word_before(at);
                let same = (difference.leading_zeros() / 8) as usize;
                let same = same.min(at - literals_from).min(from);
                tokens.take_back(same);
                first -= same;
            }
            at += length;
            literals_from = at;
            length = at - first;
            while length > LONGEST {
                // What is left must not be too short to be a match.
                let part = LONGEST.min(length - SHORTEST);
                tokens.reference(part, distance);
                length -= part;
            }
            tokens.reference(length, distance);
            remember(table, at - 2, input.word(at - 2));
        }
        for byte in input.bytes(at, end) {
            tokens.literal(*byte);
        }
        tokens.finish();
    }
}

/// Returns whether a place so far back, which differs so, is one to point to.
#[inline(always)]
fn is_match(distance: usize, difference: u64) -> bool {
    let too_far = distance.wrapping_sub(1) & MAX_DISTANCE;
    difference as u32 | too_far as u32 == 0
}

/// Remembers that `word` is at `at`; returns how far before that, modulo 64 Ki, it or a word of
/// the same hash was.
#[inline(always)]
fn remember(table: &mut [u16; 1 << TABLE_BITS], at: usize, word: u64) -> usize {
    let slot = (word as u32).wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS);
    let before = std::mem::replace(&mut table[slot as usize], at as u16);
    usize::from((at as u16).wrapping_sub(before))
}

/// Returns how many bytes from `from` on are those from `at` on, before `end`.
#[inline(always)]
fn common(input: &Window, from: usize, at: usize, end: usize) -> usize {
    let mut length = 0;
    while at + length + 8 <= end {
        let difference = input.word(from + length) ^ input.word(at + length);
        if difference != 0 {
            return length + (difference.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let (theirs, ours) = (
        input.bytes(from + length, end),
        input.bytes(at + length, end),
    );
    length + ours.iter().zip(theirs).take_while(|(a, b)| a == b).count()
}
