/// A few bits, the first of them lowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) value: u32,
    pub(super) count: u32,
}

impl Bits {
    pub(super) fn new(value: u32, count: u32) -> Self {
        Self { value, count }
    }

    /// Returns these bits, or none. Takes no branch.
    #[inline]
    pub(super) fn only_if(self, condition: bool) -> Self {
        let mask = u32::from(condition).wrapping_neg();
        Self {
            value: self.value & mask,
            count: self.count & mask,
        }
    }

    /// Returns these bits with `more` after them.
    pub(super) fn then(self, more: Self) -> Self {
        Self {
            value: self.value | (more.value << self.count),
            count: self.count + more.count,
        }
    }
}

/// Writes bits, the lowest first, as deflate wants them.
#[derive(Debug)]
pub(super) struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
            pending: 0,
            pending_bits: 0,
        }
    }

    /// Lets `write` add `bits`, or fewer.
    pub(super) fn with_room(&mut self, bits: usize, write: impl FnOnce(&mut Cursor<'_>)) {
        let before = self.out.len();
        self.out.resize(before + bits / 8 + Cursor::SLACK_BYTES, 0);
        let mut cursor = Cursor {
            room: &mut self.out[before..],
            written: 0,
            pending: self.pending,
            pending_bits: self.pending_bits,
        };
        write(&mut cursor);
        let written = cursor.written;
        (self.pending, self.pending_bits) = (cursor.pending, cursor.pending_bits);
        self.out.truncate(before + written);
    }

    /// Writes a stored block.
    pub(super) fn stored(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u32;
        self.with_room(64, |cursor| {
            cursor.push(Bits::new(0, 3));
            let padding = cursor.pending_bits.wrapping_neg() % 8;
            cursor.push(Bits::new(0, padding));
            cursor.push(Bits::new(length | (!length << 16), 32));
            cursor.flush();
        });
        self.out.extend_from_slice(bytes);
    }

    /// Returns what was written, which must end at the edge of a byte.
    pub(super) fn finish(self) -> Vec<u8> {
        debug_assert_eq!(self.pending_bits, 0, "bits are left");
        self.out
    }
}

/// The end of what is written. It holds its state by itself, so that it can stay in registers.
pub(super) struct Cursor<'a> {
    room: &'a mut [u8],
    written: usize,
    pending: u64,
    pending_bits: u32,
}

impl Cursor<'_> {
    /// A flush writes eight bytes, of which it counts the full ones.
    const SLACK_BYTES: usize = 16;

    /// Adds bits. No more than 56 may be added between two flushes.
    #[inline]
    pub(super) fn push(&mut self, bits: Bits) {
        self.pending |= u64::from(bits.value) << self.pending_bits;
        self.pending_bits += bits.count;
    }

    /// Writes the full bytes.
    #[inline]
    pub(super) fn flush(&mut self) {
        if let Some(room) = self.room.get_mut(self.written..self.written + 8) {
            room.copy_from_slice(&self.pending.to_le_bytes());
        }
        let bits = self.pending_bits & !7;
        self.written += (bits / 8) as usize;
        self.pending >>= bits;
        self.pending_bits -= bits;
    }
}
