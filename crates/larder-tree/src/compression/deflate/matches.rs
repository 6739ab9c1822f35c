use super::bits::Bits;

/// How far back a match may point.
const MAX_DISTANCE: usize = 32 << 10;

/// The longest match.
const MAX_LENGTH: usize = 258;

/// The shortest match that is looked for: deflate knows shorter ones, but they rarely pay.
const MIN_LENGTH: usize = 4;

/// The shortest match that deflate knows.
const SHORTEST: usize = 3;

/// Logarithm of the number of places that are remembered: as many as the fastest cache of a
/// processor has room for beside all else.
const TABLE_BITS: u32 = 13;

/// After this many misses in a row, one position more is skipped each time: what doesn't compress
/// is soon passed over.
const MISSES_PER_SKIP_LOG: u32 = 4;

/// Literals, and then bytes that were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// How many literals precede it.
    literals: u16,
    /// Distance less 1.
    distance: u16,
    /// Length less 3.
    pub(super) length: u8,
    /// Two for each power of two; up to 4, each distance has its own.
    pub(super) distance_symbol: u8,
}

impl Match {
    fn new(literals: usize, length: usize, distance: usize) -> Self {
        let less = distance as u32 - 1;
        let distance_symbol = if less < 4 {
            less
        } else {
            let log = less.ilog2();
            2 * log + ((less >> (log - 1)) & 1)
        };
        Self {
            literals: literals as u16,
            distance: less as u16,
            length: (length - SHORTEST) as u8,
            distance_symbol: distance_symbol as u8,
        }
    }

    pub(super) fn literals(self) -> usize {
        usize::from(self.literals)
    }

    pub(super) fn length(self) -> usize {
        usize::from(self.length) + SHORTEST
    }

    /// Returns the length's symbol, from 0.
    pub(super) fn length_symbol(self) -> u8 {
        LENGTHS[usize::from(self.length)].symbol
    }

    pub(super) fn distance_extra(self) -> Bits {
        let count = distance_extra_bits(usize::from(self.distance_symbol));
        Bits::new(u32::from(self.distance) & ((1 << count) - 1), count)
    }
}

/// Returns the symbol of the `length`th length, from 0, and the bits that follow it.
pub(super) fn length_code(length: u8) -> (u8, Bits) {
    let code = &LENGTHS[usize::from(length)];
    let extra = Bits::new(u32::from(code.extra), u32::from(code.extra_bits));
    (code.symbol, extra)
}

/// Returns how many bits follow a distance symbol.
pub(super) fn distance_extra_bits(symbol: usize) -> u32 {
    (symbol as u32 / 2).saturating_sub(1)
}

/// Returns how many bits follow a length symbol, which counts from 0.
pub(super) fn length_extra_bits(symbol: usize) -> u32 {
    match symbol {
        // The longest match has a symbol of its own.
        28 => 0,
        _ => (symbol as u32 / 4).saturating_sub(1),
    }
}

struct LengthCode {
    symbol: u8,
    extra: u8,
    extra_bits: u8,
}

/// The codes of all lengths, from the shortest.
static LENGTHS: [LengthCode; 256] = {
    const EMPTY: LengthCode = LengthCode {
        symbol: 0,
        extra: 0,
        extra_bits: 0,
    };
    let mut table = [EMPTY; 256];
    let mut at = 0;
    while at < 255 {
        let length = at as u32;
        table[at] = if length < 8 {
            LengthCode {
                symbol: at as u8,
                extra: 0,
                extra_bits: 0,
            }
        } else {
            let bits = length.ilog2() - 2;
            LengthCode {
                symbol: (4 * (bits + 1) + ((length >> bits) & 3)) as u8,
                extra: (length & ((1 << bits) - 1)) as u8,
                extra_bits: bits as u8,
            }
        };
        at += 1;
    }
    table[255].symbol = 28;
    table
};

/// Finds matches: of the places where four bytes stood before, the last one is remembered.
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

    /// Appends the matches in `input[start..end]`; they may point to before `start`.
    pub(super) fn find(&mut self, input: &[u8], start: usize, end: usize, found: &mut Vec<Match>) {
        let mut at = start;
        let mut literals_from = start;
        let mut misses = 0_usize;
        while at + 8 <= end {
            let word = load(input, at);
            let Some(from) = self.look_up(input, at, word as u32) else {
                at += 1 + (misses >> MISSES_PER_SKIP_LOG);
                misses += 1;
                continue;
            };
            misses = 0;
            let mut from = from;
            let mut length = MIN_LENGTH + common(&input[from + 4..], &input[at + 4..end]);
            while at > literals_from && from > 0 && input[at - 1] == input[from - 1] {
                at -= 1;
                from -= 1;
                length += 1;
            }
            let distance = at - from;
            let mut literals = at - literals_from;
            at += length;
            literals_from = at;
            while length > 0 {
                // What is left of a long match must not be too short to be one.
                let part = match length {
                    _ if length <= MAX_LENGTH => length,
                    _ if length < MAX_LENGTH + SHORTEST => length - SHORTEST,
                    _ => MAX_LENGTH,
                };
                found.push(Match::new(literals, part, distance));
                literals = 0;
                length -= part;
            }
            if at + 8 <= end {
                self.remember(at - 2, load(input, at - 2) as u32);
            }
        }
    }

    /// Returns where `word` stood last before `at`, if that is near enough.
    fn look_up(&mut self, input: &[u8], at: usize, word: u32) -> Option<usize> {
        let distance = self.remember(at, word);
        let from = at.checked_sub(distance)?;
        let is_near = distance != 0 && distance <= MAX_DISTANCE;
        (is_near && load(input, from) as u32 == word).then_some(from)
    }

    /// Remembers where `word` is; returns how far before that, modulo 64 Ki, it or a word of the
    /// same hash was.
    fn remember(&mut self, at: usize, word: u32) -> usize {
        let slot = word.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS);
        let before = std::mem::replace(&mut self.table[slot as usize], at as u16);
        usize::from((at as u16).wrapping_sub(before))
    }
}

/// Returns the eight bytes from `at` on, or zeros if there are fewer.
fn load(input: &[u8], at: usize) -> u64 {
    let bytes = input.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Returns how many bytes the two have in common at their beginning; `ours` is the shorter one.
fn common(theirs: &[u8], ours: &[u8]) -> usize {
    let mut length = 0;
    while length + 8 <= ours.len() {
        let difference = load(theirs, length) ^ load(ours, length);
        if difference != 0 {
            return length + (difference.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let rest = ours[length..].iter().zip(&theirs[length..]);
    length + rest.take_while(|(a, b)| a == b).count()
}
