/// How many bytes are looked at to see how often each value occurs.
const SAMPLES: usize = 1024;

/// The sum of the squared frequencies among the samples that noise stays below. Random bytes have
/// 5116, give or take 90; at this sum, coding them would save a fortieth.
const MAX_SQUARES: u32 = 5700;

/// Shorter parts are not worth a look.
const MIN_BYTES: usize = 8 * SAMPLES;

/// In how many places a repetition is looked for.
const PLACES: usize = 8;

/// One position in so many is remembered, and as many are compared in each place.
const STRIDE: usize = 32;

/// Logarithm of the number of positions that are remembered.
const TABLE_BITS: u32 = 11;

/// Returns whether `bytes`, 64 KiB at most, look like what is random or compressed already: all
/// values are about as frequent, and nothing repeats where one looks.
pub(super) fn is_noise(bytes: &[u8]) -> bool {
    bytes.len() >= MIN_BYTES && is_flat(bytes) && !repeats(bytes)
}

fn is_flat(bytes: &[u8]) -> bool {
    // An odd one, so that not always the same field of a record is looked at.
    let step = (bytes.len() / SAMPLES - 1) | 1;
    let mut counts = [0_u32; 256];
    for byte in bytes.iter().step_by(step).take(SAMPLES) {
        counts[usize::from(*byte)] += 1;
    }
    counts.iter().map(|count| count * count).sum::<u32>() < MAX_SQUARES
}

/// Returns whether one of a few places has bytes that a match could point back to, at any
/// distance.
fn repeats(bytes: &[u8]) -> bool {
    let mut table = [0_u16; 1 << TABLE_BITS];
    let word = |at: usize| {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    };
    let slot = |word: u64| (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS)) as usize;
    let part = bytes.len() / PLACES;
    for start in (0..PLACES).map(|place| place * part) {
        let is_known = |at: usize| {
            let before = usize::from(table[slot(word(at))]);
            before < start && at - before <= super::token::MAX_DISTANCE && word(before) == word(at)
        };
        if (start..start + STRIDE).any(is_known) {
            return true;
        }
        for at in (start..start + part).step_by(STRIDE) {
            table[slot(word(at))] = at as u16;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn only_what_is_random_and_does_not_repeat_is_noise() {
        for length in [MIN_BYTES, 20_000, 65535] {
            assert!(is_noise(&noise(length)), "{length}");
        }
        assert!(!is_noise(&noise(MIN_BYTES - 1)));
        let text = include_bytes!("noise.rs").repeat(8);
        assert!(!is_noise(&text));
        for period in [1000, 4096, 5003, 20_011, 30_000] {
            let repeated = noise(period).repeat(66);
            assert!(!is_noise(&repeated[..65535]), "{period}");
        }
        // A bit less than eight.
        let seven: Vec<u8> = noise(65535).iter().map(|byte| byte & 0x7f).collect();
        assert!(!is_noise(&seven));
    }
}
