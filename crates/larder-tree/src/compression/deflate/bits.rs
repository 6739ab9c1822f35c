/// The end of a symbol's bits, from the lowest bit on: at most 57 fit at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) value: u32,
    pub(super) count: u32,
}

/// Writes bits, the lowest first, as deflate wants them.
#[derive(Debug)]
pub(super) struct BitWriter {
    /// Longer than what is written: a flush writes eight bytes, and counts those that are full.
    out: Vec<u8>,
    written: usize,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
            written: 0,
            pending: 0,
            pending_bits: 0,
        }
    }

    /// Makes room for `bits` more. What is pushed must have room.
    pub(super) fn reserve_bits(&mut self, bits: usize) {
        self.out.resize(self.written + bits / 8 + 16, 0);
    }

    /// Adds bits. No more than 57 may be added between two flushes.
    pub(super) fn push(&mut self, bits: Bits) {
        self.pending |= u64::from(bits.value) << self.pending_bits;
        self.pending_bits += bits.count;
    }

    /// Writes the full bytes.
    pub(super) fn flush(&mut self) {
        let room = self.out[self.written..].first_chunk_mut();
        *room.expect("room was reserved") = self.pending.to_le_bytes();
        let bytes = self.pending_bits / 8;
        self.written += bytes as usize;
        self.pending >>= bytes * 8;
        self.pending_bits %= 8;
    }

    /// Begins a stored block that holds `bytes`, which come next.
    pub(super) fn stored_header(&mut self, bytes: &[u8]) {
        self.reserve_bits(64);
        self.push(Bits { value: 0, count: 3 });
        let padding = self.pending_bits.wrapping_neg() % 8;
        self.push(Bits {
            value: 0,
            count: padding,
        });
        self.flush();
        let length = bytes.len() as u32;
        self.push(Bits {
            value: length | (!length << 16),
            count: 32,
        });
        self.flush();
    }

    /// Adds whole bytes; nothing may be pending.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.truncate(self.written);
        self.out.extend_from_slice(bytes);
        self.written += bytes.len();
    }

    /// Returns what was written; nothing may be pending.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.truncate(self.written);
        self.out
    }
}
