//! What is used, and what is promised.

use std::fmt;

use crate::lock::{Existing, FileLock, LockMode};
use crate::usage::{Kind, Loaded, load, overhead_bytes};
use crate::{Ceiling, Error, ErrorKind, RecordType, Result, Store, disk};

/// The bytes at the start of a lease's file that say what is reserved.
pub(crate) const ENTRY_BYTES: usize = size_of::<u64>();

/// What counts under a ceiling, at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balance {
    /// Recorded sizes.
    known_bytes: u64,
    /// What leases have reserved: at least what they have written.
    reserved_bytes: u64,
    /// All else.
    overhead_bytes: u64,
    /// What could be written until the disk has no more than it must: free bytes, without what is
    /// reserved and not written yet.
    spare_bytes: u64,
}

impl Balance {
    /// Takes stock. Nothing is published or removed meanwhile, and no reservation grows if the
    /// caller holds the lock for that.
    pub(super) fn read(store: &Store, ceiling: &Ceiling) -> Result<Self> {
        let _no_removals = store.lock_publication()?;
        // In this order: what is published next is counted twice rather than not at all.
        let reserved_bytes = reserved_bytes(store)?;
        let known_bytes = store.known_bytes()?;
        let overhead_bytes = overhead_bytes(store, &["partial"])? + idle_partials(store)?;
        Ok(Self {
            known_bytes,
            reserved_bytes,
            overhead_bytes,
            spare_bytes: spare_bytes(store, ceiling, reserved_bytes)?,
        })
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.known_bytes + self.reserved_bytes + self.overhead_bytes
    }

    /// Returns the bytes that have to be freed before `more` can be reserved.
    pub(super) fn excess_bytes(&self, ceiling: &Ceiling, more: u64) -> u64 {
        self.above_max(ceiling, more)
            .max(more.saturating_sub(self.spare_bytes))
    }

    fn above_max(&self, ceiling: &Ceiling, more: u64) -> u64 {
        let most = ceiling.max_bytes.saturating_sub(ceiling.margin_bytes());
        (self.used_bytes().saturating_add(more)).saturating_sub(most)
    }

    /// Returns the bytes that may be freed at most.
    pub(super) fn freeable_bytes(&self, ceiling: &Ceiling, more: u64) -> u64 {
        if self.above_max(ceiling, more) > 0 {
            u64::MAX
        } else {
            self.used_bytes().saturating_sub(ceiling.reserved_bytes)
        }
    }

    /// Returns the error of a write that found no room: which bound, what is in its way, what to
    /// do.
    pub(super) fn refusal(&self, store: &Store, ceiling: &Ceiling, more: u64) -> Result<Error> {
        let uses = Uses::of(&load(store)?, self);
        let more = Size(more);
        let text = if self.above_max(ceiling, more.0) > 0 {
            format!(
                "the ceiling of the cache, {}, leaves no room for {more} more: {uses}\n\
                 hint: remove images with `larder rmi`, or raise `max` of `[cache]` in larder.toml",
                Size(ceiling.max_bytes)
            )
        } else {
            format!(
                "{} of the disk are to stay free, which leaves no room for {more} more: {uses}\n\
                 hint: make room on the disk, remove images with `larder rmi`, or lower `min-free` of \
                 `[cache]` in larder.toml",
                Size(ceiling.min_free_bytes)
            )
        };
        Ok(Error::new(ErrorKind::FullDisk, text))
    }
}

/// Returns what the leases have reserved, those of dead processes included until they are swept.
fn reserved_bytes(store: &Store) -> Result<u64> {
    let mut total = 0;
    for id in disk::entries(&store.layout().leases())? {
        match std::fs::read(store.layout().lease(&id)) {
            Ok(bytes) => total += decode(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("cannot read a lease", error)),
        }
    }
    Ok(total)
}

/// Returns what a lease's file says to be reserved; nothing was if it is empty.
fn decode(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk::<ENTRY_BYTES>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Writes down what a lease has reserved.
pub(super) fn write_reserved(lock: &FileLock, bytes: u64) -> Result<()> {
    match rustix::io::pwrite(lock.file(), &bytes.to_le_bytes(), 0) {
        Ok(ENTRY_BYTES) => Ok(()),
        Ok(_) => Err(Error::new(
            ErrorKind::FullDisk,
            "cannot reserve room on the disk",
        )),
        Err(errno) => Err(Error::io("cannot reserve room on the disk", errno)),
    }
}

/// Returns what the rests of downloads take that nobody is at. Whoever goes on with one has
/// reserved all of it.
fn idle_partials(store: &Store) -> Result<u64> {
    let failed = |error: std::io::Error| Error::io("cannot measure a partial download", error);
    let directory = store.layout().partials();
    let mut total = disk::allocated_entry(&directory).map_err(failed)?;
    for name in disk::entries(&directory)? {
        let path = directory.join(name);
        if let Existing::Locked(_) = FileLock::attempt_existing(&path, LockMode::Shared)? {
            total += disk::allocated_entry(&path).map_err(failed)?;
        }
    }
    Ok(total)
}

fn spare_bytes(store: &Store, ceiling: &Ceiling, reserved: u64) -> Result<u64> {
    if ceiling.min_free_bytes == 0 {
        return Ok(u64::MAX);
    }
    let failed = |error: std::io::Error| Error::io("cannot measure what is being written", error);
    let free = store.disk_space()?.free_bytes;
    let written = match reserved {
        0 => 0,
        _ => disk::allocated(&store.layout().tmp()).map_err(failed)?,
    };
    let promised = reserved.saturating_sub(written);
    Ok(free.saturating_sub(ceiling.min_free_bytes.saturating_add(promised)))
}

/// What can't be freed.
struct Uses {
    images: u64,
    builds: u64,
    mounts: u64,
    rest: u64,
}

impl Uses {
    fn of(loaded: &[Loaded], balance: &Balance) -> Self {
        let sum = |wanted: &dyn Fn(&Loaded) -> bool| -> u64 {
            let matching = loaded.iter().filter(|one| wanted(one));
            matching.map(|one| one.record.size_bytes).sum()
        };
        let is_mount = |one: &Loaded| one.record.record_type == RecordType::CacheMount;
        let is_held = |one: &Loaded| one.record.in_use && one.kind != Kind::Unfinished;
        let images = sum(&|one| one.record.shared);
        let held = sum(&|one| is_held(one) && !one.record.shared && !is_mount(one));
        Self {
            images,
            builds: held + balance.reserved_bytes,
            mounts: sum(&|one| is_mount(one)),
            rest: balance.overhead_bytes,
        }
    }
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "images with a name take {}, running builds {}, cache mounts {}, indexes {}",
            Size(self.images),
            Size(self.builds),
            Size(self.mounts),
            Size(self.rest)
        )
    }
}

/// A number of bytes, shown with a decimal unit.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
        let bytes = self.0 as f64;
        match units.into_iter().find(|(_, size)| bytes >= *size) {
            Some((unit, size)) => {
                let count = (bytes / size * 10.0).round() / 10.0;
                write!(f, "{count} {unit}")
            }
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (4096, "4.1 kB"),
            (20_000_000_000, "20 GB"),
            (1_550_000, "1.6 MB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_lease_that_reserved_nothing_has_an_empty_file() {
        assert_eq!(decode(&[]), 0);
        assert_eq!(decode(&77_u64.to_le_bytes()), 77);
    }
}
