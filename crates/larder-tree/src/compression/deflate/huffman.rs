use super::bits::{Bits, Cursor};
use super::token::{FIRST_LENGTH, Token, distance_extra_bits, length_code, length_extra_bits};
use super::{DISTANCE_SYMBOLS, END_OF_BLOCK, LENGTH_SYMBOLS, MAX_CODE_BITS};

/// The order in which the lengths of the code length codes are written (RFC 1951, 3.2.7).
const CODE_LENGTH_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// The longest code of a code length.
const MAX_CODE_LENGTH_BITS: usize = 7;

/// The codes of a block's two alphabets.
pub(super) struct Codes {
    lengths: [Bits; LENGTH_SYMBOLS],
    distances: [Bits; DISTANCE_SYMBOLS],
    header: Header,
}

impl Codes {
    /// Makes the codes for symbols that occur so often. At least two literals or lengths must.
    pub(super) fn new(
        lengths: &[u32; LENGTH_SYMBOLS],
        distances: &[u32; DISTANCE_SYMBOLS],
    ) -> Self {
        let mut distances = *distances;
        // Some decoders want two codes; a block without matches has none.
        let used = distances.iter().filter(|count| **count > 0).count();
        for count in distances
            .iter_mut()
            .filter(|count| **count == 0)
            .take(2_usize.saturating_sub(used))
        {
            *count = 1;
        }
        let lengths = codes::<LENGTH_SYMBOLS>(lengths, MAX_CODE_BITS);
        let distances = codes::<DISTANCE_SYMBOLS>(&distances, MAX_CODE_BITS);
        let header = Header::new(&lengths, &distances);
        Self {
            lengths,
            distances,
            header,
        }
    }

    /// Returns how many bits a block takes whose symbols occur so often.
    pub(super) fn cost_bits(
        &self,
        lengths: &[u32; LENGTH_SYMBOLS],
        distances: &[u32; DISTANCE_SYMBOLS],
    ) -> usize {
        let extra = |symbol: usize| {
            symbol
                .checked_sub(FIRST_LENGTH)
                .map_or(0, length_extra_bits)
        };
        let lengths = lengths.iter().zip(&self.lengths).enumerate();
        let lengths = lengths.map(|(symbol, (count, code))| *count * (code.count + extra(symbol)));
        let distances = distances.iter().zip(&self.distances).enumerate();
        let distances = distances
            .map(|(symbol, (count, code))| *count * (code.count + distance_extra_bits(symbol)));
        (self.header.cost_bits() + lengths.sum::<u32>() + distances.sum::<u32>()) as usize
    }

    /// Writes the head of a block that is coded so.
    pub(super) fn write_header(&self, out: &mut Cursor<'_>) {
        self.header.write(out);
    }

    /// Returns what tokens become.
    pub(super) fn table(&self) -> CodeTable {
        let mut firsts = [0; Token::FIRSTS];
        for (first, entry) in firsts.iter_mut().enumerate() {
            let code = match first.checked_sub(256) {
                None => self.lengths[first],
                Some(length) => {
                    let (symbol, extra) = length_code(length as u8);
                    self.lengths[FIRST_LENGTH + usize::from(symbol)].then(extra)
                }
            };
            *entry = code.value << 8 | code.count;
        }
        let mut seconds = [0; Token::SECONDS];
        for (symbol, code) in self.distances.iter().enumerate() {
            let with_extra = code.count + distance_extra_bits(symbol);
            seconds[symbol + 1] = code.value << 16 | with_extra << 8 | code.count;
        }
        CodeTable { firsts, seconds }
    }

    pub(super) fn end_of_block(&self) -> Bits {
        self.lengths[END_OF_BLOCK]
    }
}

/// The codes of all tokens, packed to be found by one look-up each.
pub(super) struct CodeTable {
    /// In the lowest byte, how many bits there are; above it code and extra bits, which are known
    /// here.
    firsts: [u32; Token::FIRSTS],
    /// In the lowest byte, how long the code is; in the next, how long it is with the extra bits;
    /// above them the code.
    seconds: [u32; Token::SECONDS],
}

impl CodeTable {
    /// Returns the bits of a token, and how many they are: 42 at most.
    #[inline(always)]
    pub(super) fn bits(&self, token: Token) -> (u64, u32) {
        // A shift by a number of bits takes no note of what stands above it.
        let first = self.firsts[token.first()];
        let second = self.seconds[token.second()];
        let distance = (second >> 16) | token.extra().wrapping_shl(second);
        let bits = u64::from(first >> 8) | u64::from(distance).wrapping_shl(first);
        (bits, (first & 0xff) + ((second >> 8) & 0xff))
    }
}

/// What a block's head says: the lengths of all codes, themselves coded.
struct Header {
    /// Symbols of code lengths, and the extra bits of those that repeat.
    symbols: Vec<(u8, Bits)>,
    codes: [Bits; 19],
    length_count: usize,
    distance_count: usize,
    /// How many of the code length codes' lengths are written.
    code_count: usize,
}

impl Header {
    fn new(lengths: &[Bits; LENGTH_SYMBOLS], distances: &[Bits; DISTANCE_SYMBOLS]) -> Self {
        let used = |codes: &[Bits], least: usize| {
            let last = codes.iter().rposition(|code| code.count > 0);
            last.map_or(least, |last| least.max(last + 1))
        };
        let length_count = used(lengths, FIRST_LENGTH);
        let distance_count = used(distances, 1);
        let all = lengths[..length_count]
            .iter()
            .chain(&distances[..distance_count]);
        let symbols = run_lengths(&all.map(|code| code.count as u8).collect::<Vec<_>>());
        let mut counts = [0; 19];
        for (symbol, _) in &symbols {
            counts[usize::from(*symbol)] += 1;
        }
        let codes = codes::<19>(&counts, MAX_CODE_LENGTH_BITS);
        let is_used = |symbol: &usize| codes[*symbol].count > 0;
        let last = CODE_LENGTH_ORDER.iter().rposition(is_used);
        Self {
            symbols,
            codes,
            length_count,
            distance_count,
            code_count: last.map_or(4, |last| 4.max(last + 1)),
        }
    }

    fn cost_bits(&self) -> u32 {
        let symbols = self.symbols.iter();
        let bits =
            symbols.map(|(symbol, extra)| self.codes[usize::from(*symbol)].count + extra.count);
        3 + 5 + 5 + 4 + 3 * self.code_count as u32 + bits.sum::<u32>()
    }

    fn write(&self, out: &mut Cursor<'_>) {
        let number = |value: usize, count| Bits {
            value: value as u32,
            count,
        };
        // Not the last block; dynamic codes.
        out.push(number(0b100, 3));
        out.push(number(self.length_count - FIRST_LENGTH, 5));
        out.push(number(self.distance_count - 1, 5));
        out.push(number(self.code_count - 4, 4));
        out.flush();
        for symbol in &CODE_LENGTH_ORDER[..self.code_count] {
            out.push(number(self.codes[*symbol].count as usize, 3));
            out.flush();
        }
        for (symbol, extra) in &self.symbols {
            out.push(self.codes[usize::from(*symbol)]);
            out.push(*extra);
            out.flush();
        }
    }
}

/// Writes runs of equal code lengths as such: 16 repeats the last one 3 to 6 times, 17 and 18
/// stand for 3 to 10 and 11 to 138 zeros.
fn run_lengths(lengths: &[u8]) -> Vec<(u8, Bits)> {
    let mut symbols = Vec::new();
    let mut repeat = |symbol: u8, run: usize, least: usize, count: u32| {
        let value = (run - least) as u32;
        symbols.push((symbol, Bits { value, count }));
    };
    for run in lengths.chunk_by(|a, b| a == b) {
        let length = run[0];
        let mut left = run.len();
        if length > 0 {
            repeat(length, 0, 0, 0);
            left -= 1;
        }
        while left > 0 {
            let taken = match (length, left) {
                (0, 11..) => left.min(138),
                (0, 3..) => left.min(10),
                (1.., 3..) => left.min(6),
                _ => 1,
            };
            match (length, taken) {
                (_, 1) => repeat(length, 0, 0, 0),
                (0, 11..) => repeat(18, taken, 11, 7),
                (0, _) => repeat(17, taken, 3, 3),
                _ => repeat(16, taken, 3, 2),
            }
            left -= taken;
        }
    }
    symbols
}

/// Returns the canonical codes of symbols that occur so often, none longer than `max_bits`.
fn codes<const N: usize>(counts: &[u32; N], max_bits: usize) -> [Bits; N] {
    let lengths = code_lengths(counts, max_bits);
    let mut next = [0_u32; MAX_CODE_BITS + 2];
    for length in lengths.iter().filter(|length| **length > 0) {
        next[usize::from(*length) + 1] += 1;
    }
    for bits in 1..next.len() {
        next[bits] = (next[bits] + next[bits - 1]) << 1;
    }
    let mut codes = [Bits::default(); N];
    for (code, length) in codes.iter_mut().zip(lengths) {
        if length > 0 {
            let slot = &mut next[usize::from(length)];
            code.value = slot.reverse_bits() >> (32 - u32::from(length));
            code.count = u32::from(length);
            *slot += 1;
        }
    }
    codes
}

/// Returns the lengths of a Huffman code, bound to `max_bits`; 0 for symbols that don't occur.
fn code_lengths<const N: usize>(counts: &[u32; N], max_bits: usize) -> [u8; N] {
    let mut lengths = [0; N];
    // The count above the symbol, so that they sort by count.
    let mut order = [0_u32; LENGTH_SYMBOLS];
    let mut used = 0;
    for (symbol, count) in counts.iter().enumerate() {
        order[used] = count << 9 | symbol as u32;
        used += usize::from(*count > 0);
    }
    let order = &mut order[..used];
    let symbol = |entry: u32| (entry & 511) as usize;
    if let [only] = *order {
        lengths[symbol(only)] = 1;
        return lengths;
    }
    order.sort_unstable();
    let mut weights = [0_u32; 2 * LENGTH_SYMBOLS];
    for (weight, entry) in weights.iter_mut().zip(&*order) {
        *weight = entry >> 9;
    }
    let mut per_length = depths(&mut weights, used, max_bits);
    make_room(&mut per_length, max_bits);
    // The rarest symbols get the longest codes.
    let mut rarest = order.iter();
    for length in (1..=max_bits).rev() {
        for entry in rarest.by_ref().take(per_length[length]) {
            lengths[symbol(*entry)] = length as u8;
        }
    }
    lengths
}

/// Lengthens codes until all fit, after those that were too long were cut to `max_bits`.
fn make_room(per_length: &mut [usize; 33], max_bits: usize) {
    let used = (1..=max_bits).map(|length| per_length[length] << (max_bits - length));
    let mut excess = used.sum::<usize>().saturating_sub(1 << max_bits);
    while excess > 0 {
        // One of the longest codes moves beside a shorter one, which grows by a bit for that.
        per_length[max_bits] -= 1;
        let shorter = (1..max_bits).rev().find(|length| per_length[*length] > 0);
        let Some(shorter) = shorter else { return };
        per_length[shorter] -= 1;
        per_length[shorter + 1] += 2;
        excess -= 1;
    }
}

/// Returns how many leaves of a Huffman tree are how deep, those too deep as if at `max_bits`.
/// The first `leaves` weights are theirs, sorted; after them there is room for the inner nodes'.
fn depths(weights: &mut [u32; 2 * LENGTH_SYMBOLS], leaves: usize, max_bits: usize) -> [usize; 33] {
    let mut per_length = [0; 33];
    if leaves < 2 {
        return per_length;
    }
    // Nodes are made in the order of their weights: the two lightest are at the heads of two
    // queues, of the leaves and of the inner nodes.
    let nodes = 2 * leaves - 1;
    let mut parents = [0_u16; 2 * LENGTH_SYMBOLS];
    let (mut leaf, mut inner) = (0, leaves);
    for node in leaves..nodes {
        let mut sum = 0;
        for _ in 0..2 {
            let takes_leaf = leaf < leaves && (inner >= node || weights[leaf] <= weights[inner]);
            let child = if takes_leaf { &mut leaf } else { &mut inner };
            sum += weights[*child];
            parents[*child] = node as u16;
            *child += 1;
        }
        weights[node] = sum;
    }
    let mut depths = [0_u8; 2 * LENGTH_SYMBOLS];
    for node in (0..nodes - 1).rev() {
        let depth = depths[usize::from(parents[node])] + 1;
        depths[node] = depth;
        if node < leaves {
            per_length[usize::from(depth).min(max_bits)] += 1;
        }
    }
    per_length
}
