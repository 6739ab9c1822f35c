use super::bits::Bits;

/// The literal/length symbol of the shortest match.
pub(super) const FIRST_LENGTH: usize = 257;

/// The shortest match that deflate knows.
pub(super) const SHORTEST: usize = 3;

/// The longest match.
pub(super) const LONGEST: usize = 258;

/// How far back a match may point.
pub(super) const MAX_DISTANCE: usize = 32 << 10;

/// A literal, or bytes that were there before: what one code, or a pair of them, stands for.
///
/// | bits | a literal | a match |
/// | --- | --- | --- |
/// | 0 to 8 | the byte | 256 + length - 3 |
/// | 9 to 13 | 0 | distance symbol + 1 |
/// | 14 to 26 | 0 | the distance's extra bits |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Token(u32);

impl Token {
    /// How many values [`first`](Self::first) has: all literals, then all lengths.
    pub(super) const FIRSTS: usize = 512;

    /// How many values [`second`](Self::second) has.
    pub(super) const SECONDS: usize = 32;

    #[inline]
    pub(super) fn literal(byte: u8) -> Self {
        Self(u32::from(byte))
    }

    /// Returns a match, whose length and distance must be in bounds.
    #[inline]
    pub(super) fn reference(length: usize, distance: usize) -> Self {
        let less = (distance as u32).wrapping_sub(1);
        // Two symbols for each power of two; up to 4, each distance has its own.
        let log = (less | 2).ilog2();
        let bits = log - 1;
        let symbol = 2 * bits + (less >> bits);
        let extra = less & !(u32::MAX << bits);
        Self((length - SHORTEST + 256) as u32 | (symbol + 1) << 9 | extra << 14)
    }

    /// Returns the byte of a literal, or 256 and the length, from 0.
    #[inline]
    pub(super) fn first(self) -> usize {
        self.0 as usize % Self::FIRSTS
    }

    /// Returns the distance symbol, from 1; 0 for a literal.
    #[inline]
    pub(super) fn second(self) -> usize {
        (self.0 >> 9) as usize % Self::SECONDS
    }

    /// Returns the value of the distance's extra bits.
    #[inline]
    pub(super) fn extra(self) -> u32 {
        self.0 >> 14
    }
}

/// Returns the symbol of the `length`th length, from 0, and the bits that follow it.
pub(super) fn length_code(length: u8) -> (u8, Bits) {
    let value = u32::from(length);
    match length {
        0..8 => (length, Bits::default()),
        // The longest match has a symbol of its own.
        255 => (28, Bits::default()),
        _ => {
            let bits = value.ilog2() - 2;
            let symbol = 4 * (bits + 1) + ((value >> bits) & 3);
            let extra = value & ((1 << bits) - 1);
            (symbol as u8, Bits::new(extra, bits))
        }
    }
}

/// Returns how many bits follow a distance symbol.
pub(super) fn distance_extra_bits(symbol: usize) -> u32 {
    (symbol as u32 / 2).saturating_sub(1)
}

/// Returns how many bits follow a length symbol, which counts from 0.
pub(super) fn length_extra_bits(symbol: usize) -> u32 {
    match symbol {
        28 => 0,
        _ => (symbol as u32 / 4).saturating_sub(1),
    }
}
