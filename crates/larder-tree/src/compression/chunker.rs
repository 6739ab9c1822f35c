/// No chunk but the last is shorter. These bytes aren't looked at, apart from the last few.
const MIN_BYTES: usize = 192 << 10;

/// No chunk is longer.
const MAX_BYTES: usize = 512 << 10;

/// A boundary falls on one byte in 64 Ki, so chunks have 256 KiB in the mean.
const BOUNDARY_MASK: u64 = ((1 << 16) - 1) << 48;

/// How many bytes before a boundary decide on it: each shifts the hash by a bit.
const WINDOW: usize = 64;

/// Cuts a stream into chunks where its bytes, not its offsets, say so: what follows an insertion
/// is soon cut as it was before, and its chunks stay the same.
///
/// Where the cuts fall decides what the encoder writes, so any change here changes the digests of
/// all compressed layers.
#[derive(Debug, Default)]
pub(super) struct Chunker {
    pending: Vec<u8>,
    /// How far `pending` was searched for a boundary.
    searched: usize,
    hash: u64,
}

impl Chunker {
    /// Takes as much of `bytes` as belongs to the current chunk. Returns how much, and the chunk
    /// if it is complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(MAX_BYTES);
        }
        let before = self.pending.len();
        let taken = bytes.len().min(MAX_BYTES - before);
        self.pending.extend_from_slice(&bytes[..taken]);
        match self.find_boundary() {
            Some(end) => {
                self.pending.truncate(end);
                (end - before, Some(self.take()))
            }
            None => (taken, None),
        }
    }

    /// Returns what is left of the stream.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.pending.is_empty()).then(|| self.take())
    }

    /// Takes an empty buffer to collect the next chunk in, if it has none.
    pub(super) fn recycle(&mut self, buffer: Option<Vec<u8>>) {
        if let Some(buffer) = buffer
            && self.pending.capacity() == 0
        {
            self.pending = buffer;
            self.pending.clear();
        }
    }

    fn take(&mut self) -> Vec<u8> {
        self.searched = 0;
        self.hash = 0;
        std::mem::take(&mut self.pending)
    }

    fn find_boundary(&mut self) -> Option<usize> {
        let length = self.pending.len();
        let add = |hash: u64, byte: &u8| (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
        // Before the first place for a boundary, bytes only enter the hash.
        let warm_up = self.searched.max(MIN_BYTES - WINDOW)..length.min(MIN_BYTES - 1);
        let warm_up = self.pending.get(warm_up).unwrap_or_default();
        let mut hash = warm_up.iter().fold(self.hash, add);
        let start = self.searched.max(MIN_BYTES - 1);
        for (at, byte) in self.pending.iter().enumerate().skip(start) {
            hash = add(hash, byte);
            if hash & BOUNDARY_MASK == 0 {
                return Some(at + 1);
            }
        }
        self.hash = hash;
        self.searched = length;
        (length == MAX_BYTES).then_some(MAX_BYTES)
    }
}

/// A fixed random number for each value of a byte (the `splitmix64` sequence from 0).
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0_u64;
    let mut at = 0;
    while at < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..length).map(step).collect()
    }

    fn chunks(mut bytes: &[u8], write_size: usize) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::default();
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (taken, chunk) = chunker.push(&bytes[..bytes.len().min(write_size)]);
            bytes = &bytes[taken..];
            found.extend(chunk);
        }
        found.extend(chunker.finish());
        found
    }

    #[test]
    fn the_cuts_do_not_depend_on_how_the_stream_is_written() {
        let bytes = noise(3 << 20, 7);
        let whole = chunks(&bytes, usize::MAX);
        assert_eq!(whole.concat(), bytes);
        assert!(whole.len() > 6 && whole.len() < 24, "{}", whole.len());
        assert_eq!(chunks(&bytes, 1000), whole);
        assert_eq!(chunks(&bytes, 300_001), whole);
    }

    #[test]
    fn an_insertion_changes_only_the_chunks_around_it() {
        let before = noise(4 << 20, 9);
        let after = [&before[..1 << 20], b"inserted", &before[1 << 20..]].concat();
        let known: HashSet<_> = chunks(&before, usize::MAX).into_iter().collect();
        let new = chunks(&after, usize::MAX);
        let changed = new.iter().filter(|chunk| !known.contains(*chunk)).count();
        assert!(changed <= 3, "{changed} of {}", new.len());
    }

    #[test]
    fn bytes_that_are_all_alike_are_cut_at_the_limit() {
        let lengths: Vec<_> = chunks(&vec![0; 1 << 20], 4096)
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lengths, [MAX_BYTES, MAX_BYTES]);
    }
}
