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

    /// Returns these bits with `more` after them.
    pub(super) fn then(self, more: Self) -> Self {
        Self {
            value: self.value | (more.value << self.count),
            count: self.count + more.count,
        }
    }
}

/// Room for what is written between two calls of [`BitWriter::write`]: more than any block takes
/// that is not stored.
const ROOM_BYTES: usize = 1 << 17;

/// A flush writes eight bytes, of which it counts the full ones.
const FLUSH_BYTES: usize = 8;

/// Writes bits, the lowest first, as deflate wants them.
#[derive(Debug)]
pub(super) struct BitWriter {
    out: Vec<u8>,
    room: Box<[u8; ROOM_BYTES + FLUSH_BYTES]>,
    pending: u64,
    pending_bits: u32,
}

impl Default for BitWriter {
    fn default() -> Self {
        let room = vec![0; ROOM_BYTES + FLUSH_BYTES].into_boxed_slice();
        Self {
            out: Vec::new(),
            room: room.try_into().expect("it has this length"),
            pending: 0,
            pending_bits: 0,
        }
    }
}

impl BitWriter {
    /// Makes room for so many bytes at once.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// Lets `write` add bits, no more than 128 KiB.
    #[inline(always)]
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Cursor<'_>)) {
        let mut cursor = Cursor {
            room: &mut self.room,
            written: 0,
            pending: self.pending,
            pending_bits: self.pending_bits,
        };
        write(&mut cursor);
        let written = cursor.written;
        (self.pending, self.pending_bits) = (cursor.pending, cursor.pending_bits);
        self.out.extend_from_slice(&self.room[..written]);
    }

    /// Writes a stored block.
    pub(super) fn stored(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u32;
        self.write(|cursor| {
            cursor.push(Bits::new(0, 3));
            let padding = cursor.pending_bits.wrapping_neg() % 8;
            cursor.push(Bits::new(0, padding));
            cursor.push(Bits::new(length | (!length << 16), 32));
            cursor.flush();
        });
        self.out.extend_from_slice(bytes);
    }

    /// Returns what was written, which must end at the edge of a byte, and starts anew.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        debug_assert_eq!(self.pending_bits, 0, "bits are left");
        std::mem::take(&mut self.out)
    }
}

/// The end of what is written. It holds its state by itself, so that it can stay in registers.
pub(super) struct Cursor<'a> {
    room: &'a mut [u8; ROOM_BYTES + FLUSH_BYTES],
    written: usize,
    pending: u64,
    pending_bits: u32,
}

impl Cursor<'_> {
    /// How many bits may be added between two flushes.
    pub(super) const MOST_BITS: u32 = 56;

    /// Adds bits. No more than [`MOST_BITS`](Self::MOST_BITS) may be added between two flushes.
    #[inline(always)]
    pub(super) fn push(&mut self, bits: Bits) {
        self.push_wide(u64::from(bits.value), bits.count);
    }

    /// Adds the low `count` bits of `value`, of which there are no others.
    #[inline(always)]
    pub(super) fn push_wide(&mut self, value: u64, count: u32) {
        self.pending |= value << self.pending_bits;
        self.pending_bits += count;
    }

    /// Writes the full bytes.
    #[inline(always)]
    pub(super) fn flush(&mut self) {
        let room = self.room[self.written % ROOM_BYTES..].first_chunk_mut();
        *room.expect("as many bytes follow any position") = self.pending.to_le_bytes();
        self.written += (self.pending_bits / 8) as usize;
        self.pending >>= self.pending_bits & !7;
        self.pending_bits %= 8;
    }
}
