/// How much input there is room for.
const MAX_BYTES: usize = 1 << 19;

/// Before the input and after it, so that what lies around a position can be read as well.
const PADDING_BYTES: usize = 32;

/// The input, in a place of fixed size: the compiler sees that no read leaves it.
#[derive(Debug)]
pub(super) struct Window(Box<[u8; PADDING_BYTES + MAX_BYTES + PADDING_BYTES]>);

impl Default for Window {
    fn default() -> Self {
        let bytes = vec![0; PADDING_BYTES + MAX_BYTES + PADDING_BYTES].into_boxed_slice();
        Self(bytes.try_into().expect("it has this length"))
    }
}

impl Window {
    /// How much input there is room for.
    pub(super) const MAX_BYTES: usize = MAX_BYTES;

    /// Takes the input, no more than [`MAX_BYTES`](Self::MAX_BYTES).
    pub(super) fn fill(&mut self, input: &[u8]) {
        self.0[PADDING_BYTES..PADDING_BYTES + input.len()].copy_from_slice(input);
    }

    /// Returns the input's bytes from `start` to `end`.
    pub(super) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        &self.0[PADDING_BYTES + start..PADDING_BYTES + end]
    }

    /// Returns the `N` bytes from `at` on, of which those beyond the input mean nothing.
    #[inline(always)]
    pub(super) fn array<const N: usize>(&self, at: usize) -> &[u8; N] {
        const { assert!(N <= PADDING_BYTES) };
        self.0[at % MAX_BYTES + PADDING_BYTES..]
            .first_chunk()
            .expect("as many bytes follow any position")
    }

    /// Returns the eight bytes from `at` on, of which those beyond the input mean nothing.
    #[inline(always)]
    pub(super) fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.array(at))
    }

    /// Returns the eight bytes before `at`, of which those before the input are 0.
    #[inline(always)]
    pub(super) fn word_before(&self, at: usize) -> u64 {
        let bytes = self.0[at % MAX_BYTES + PADDING_BYTES - 8..].first_chunk();
        u64::from_le_bytes(*bytes.expect("as many bytes precede any position"))
    }
}
