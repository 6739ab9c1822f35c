//! The ceiling: bounds of the disk that are never passed, because room is reserved before it is
//! written to. `docs/dev/store.md` has the argument.

mod balance;
mod reservation;
mod room;
mod watch;

pub(crate) use balance::ENTRY_BYTES;
pub(crate) use reservation::{Ledger, Reservation, into_io};
pub use watch::Watch;

/// Bounds of what the state directory takes, in allocated bytes as `du` counts them.
///
/// Whoever writes through a [`Lease`](crate::Lease) reserves first; if that would pass a bound,
/// records that nothing needs go, and if that isn't enough, the write is refused. All processes
/// that share a state directory share the room; they should be given the same bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// The most that the state directory takes; `u64::MAX` for no such bound.
    pub max_bytes: u64,
    /// The most that cache mounts take of it. Within this they are the last to go, beyond it the
    /// first; the one used last may be larger.
    pub mounts_bytes: u64,
    /// What is not freed for the sake of `min_free_bytes`.
    pub reserved_bytes: u64,
    /// What of the disk stays free; 0 for no such bound.
    pub min_free_bytes: u64,
}

impl Ceiling {
    /// Returns the share of the ceiling between two sizes.
    fn share(&self, divisor: u64, least: u64, most: u64) -> u64 {
        (self.max_bytes / divisor).clamp(least, most)
    }

    /// What is reserved at a time, so that a reservation is seldom written down.
    fn chunk_bytes(&self) -> u64 {
        self.share(64, 64 << 10, 16 << 20)
    }

    /// What is kept for all that grows without a reservation: the database and its log, lock
    /// files, directories of the store.
    fn margin_bytes(&self) -> u64 {
        self.share(16, 2 << 20, 16 << 20)
    }

    /// What is freed beyond what is needed, so that records go many at a time.
    fn headroom_bytes(&self) -> u64 {
        self.share(20, 0, 1 << 30)
    }

    /// What a running process may write between two looks at it.
    fn slack_bytes(&self) -> u64 {
        self.share(32, 256 << 10, 32 << 20)
    }
}
