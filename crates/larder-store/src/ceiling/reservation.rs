//! Room that a lease has reserved, and those who write into it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_tree::quota::Quota;

use super::balance::{Balance, write_reserved};
use crate::lease::WeakLease;
use crate::lock::{FileLock, LockMode};
use crate::{Ceiling, Error, ErrorKind, Lease, Result, Store};

/// What a lease has reserved, for all processes to see in its file, and how much of that its own
/// writers have taken.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Accounts>);

#[derive(Debug, Default, Clone, Copy)]
struct Accounts {
    reserved_bytes: u64,
    taken_bytes: u64,
    /// Whether there once was no room for a whole chunk: from then on no more is reserved than
    /// is needed.
    is_tight: bool,
}

impl Ledger {
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_take(&self, bytes: u64) -> bool {
        let mut accounts = self.accounts();
        let fits = accounts.missing(bytes) == 0;
        if fits {
            accounts.taken_bytes += bytes;
        }
        fits
    }

    /// Gives back what was taken. Returns what is reserved and not taken.
    fn put_back(&self, bytes: u64) -> u64 {
        let mut accounts = self.accounts();
        accounts.taken_bytes = accounts.taken_bytes.saturating_sub(bytes);
        accounts.reserved_bytes - accounts.taken_bytes
    }
}

impl Accounts {
    /// What would have to be reserved for `bytes` more to be taken.
    fn missing(&self, bytes: u64) -> u64 {
        (self.taken_bytes.saturating_add(bytes)).saturating_sub(self.reserved_bytes)
    }
}

impl Lease {
    /// Takes `bytes` of what is reserved, and reserves more if that is used up.
    fn take(&self, ceiling: &Ceiling, bytes: u64) -> Result<()> {
        while !self.ledger().try_take(bytes) {
            self.grow(ceiling, bytes)?;
        }
        Ok(())
    }

    /// Reserves what is missing for `bytes`, and makes room for that if need be.
    fn grow(&self, ceiling: &Ceiling, bytes: u64) -> Result<()> {
        let store = self.store();
        let chunk = ceiling.chunk_bytes();
        if self.reserve(ceiling, bytes, chunk)? {
            return Ok(());
        }
        if !self.ledger().accounts().is_tight {
            store.make_room(ceiling, bytes.max(chunk))?;
            if self.reserve(ceiling, bytes, chunk)? {
                return Ok(());
            }
            self.ledger().accounts().is_tight = true;
        }
        if self.reserve(ceiling, bytes, 0)? {
            return Ok(());
        }
        store.make_room(ceiling, bytes)?;
        if self.reserve(ceiling, bytes, 0)? {
            return Ok(());
        }
        Err(Balance::read(store, ceiling)?.refusal(store, ceiling, bytes)?)
    }

    /// Reserves what is missing for `bytes`, but no less than `least`; returns whether there is
    /// room.
    fn reserve(&self, ceiling: &Ceiling, bytes: u64, least: u64) -> Result<bool> {
        // What was made counts once from then on, not twice.
        self.store().flush()?;
        let _others = lock_reservations(self.store())?;
        // Only who holds the lock changes what is reserved.
        let before = *self.ledger().accounts();
        let more = match before.missing(bytes) {
            0 => return Ok(true),
            missing => missing.max(least),
        };
        if Balance::read(self.store(), ceiling)?.excess_bytes(ceiling, more) > 0 {
            return Ok(false);
        }
        let reserved_bytes = before.reserved_bytes + more;
        write_reserved(self.lock()?, reserved_bytes)?;
        self.ledger().accounts().reserved_bytes = reserved_bytes;
        Ok(true)
    }

    /// Gives `bytes` back, to the lease's other writers; what would be far too much for these, to
    /// other leases.
    fn give_back(&self, ceiling: &Ceiling, bytes: u64) -> Result<()> {
        if self.ledger().put_back(bytes) > 2 * ceiling.chunk_bytes() {
            self.shrink(ceiling, &lock_reservations(self.store())?)?;
        }
        Ok(())
    }

    /// As [`give_back`](Self::give_back), for who may have locked reservations, or have to do with one who
    /// has: to other leases only if nobody has.
    fn give_back_at_once(&self, ceiling: &Ceiling, bytes: u64) -> Result<()> {
        if self.ledger().put_back(bytes) > 2 * ceiling.chunk_bytes()
            && let Some(others) = FileLock::attempt(&lock_path(self.store()), LockMode::Exclusive)?
        {
            self.shrink(ceiling, &others)?;
        }
        Ok(())
    }

    /// Reserves no more than what is taken, and a chunk.
    fn shrink(&self, ceiling: &Ceiling, _others: &FileLock) -> Result<()> {
        let reserved_bytes = {
            let mut accounts = self.ledger().accounts();
            let kept = accounts.taken_bytes.saturating_add(ceiling.chunk_bytes());
            accounts.reserved_bytes = accounts.reserved_bytes.min(kept);
            accounts.reserved_bytes
        };
        write_reserved(self.lock()?, reserved_bytes)
    }
}

/// Excludes all who would reserve.
fn lock_reservations(store: &Store) -> Result<FileLock> {
    FileLock::wait(&lock_path(store), LockMode::Exclusive)
}

fn lock_path(store: &Store) -> PathBuf {
    store.layout().lock("ceiling")
}

/// What one writer has taken: until its bytes are recorded, or removed again.
///
/// Clones are the same. Counts nothing in a store without a ceiling.
#[derive(Debug, Clone)]
pub(crate) struct Reservation(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    lease: Lease,
    bytes: AtomicU64,
}

impl Reservation {
    /// Takes `bytes` through `lease`.
    pub(crate) fn new(lease: &Lease, bytes: u64) -> Result<Self> {
        let reservation = Self(Arc::new(Taken {
            lease: lease.clone(),
            bytes: AtomicU64::new(0),
        }));
        reservation.add(bytes)?;
        Ok(reservation)
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// `FullDisk` if they would pass the ceiling whatever is removed.
    pub(crate) fn add(&self, bytes: u64) -> Result<()> {
        if let Some(ceiling) = self.0.lease.store().ceiling() {
            self.0.lease.take(&ceiling, bytes)?;
            self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes what is missing to `total` bytes.
    pub(crate) fn cover(&self, total: u64) -> Result<()> {
        match total.saturating_sub(self.0.bytes.load(Ordering::Relaxed)) {
            0 => Ok(()),
            missing => self.add(missing),
        }
    }

    /// Hands over what was taken to whom drops it when the bytes are recorded.
    pub(crate) fn hand_over(&self) -> Owed {
        Owed {
            lease: self.0.lease.downgrade(),
            bytes: self.0.bytes.swap(0, Ordering::Relaxed),
        }
    }
}

/// What was taken for bytes that are in their place, and are recorded by a later transaction: given back
/// when it is dropped.
///
/// It keeps no lease alive: one that ends has all recorded, and then reserves nothing any more.
#[derive(Debug)]
pub(crate) struct Owed {
    lease: WeakLease,
    bytes: u64,
}

impl Drop for Owed {
    fn drop(&mut self) {
        let Some(lease) = self.lease.upgrade() else {
            return;
        };
        if let Some(ceiling) = lease.store().ceiling()
            && let Err(error) = lease.give_back_at_once(&ceiling, self.bytes)
        {
            tracing::warn!(%error, "a reservation stays until its lease ends");
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(ceiling) = self.lease.store().ceiling() else {
            return;
        };
        let bytes = *self.bytes.get_mut();
        if let Err(error) = self.lease.give_back(&ceiling, bytes) {
            tracing::warn!(%error, "a reservation stays until its lease ends");
        }
    }
}

impl Quota for Reservation {
    fn take(&self, bytes: u64) -> io::Result<()> {
        self.add(bytes).map_err(into_io)
    }
}

/// Returns an error for those to whom the store is but a writer.
pub(crate) fn into_io(error: Error) -> io::Error {
    match error.kind() {
        ErrorKind::FullDisk => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => io::Error::other(error),
    }
}
