//! Processes that write by themselves, and are looked at while they do.

use std::path::PathBuf;

use super::Reservation;
use crate::{ActiveSnapshot, CacheMountGuard, Ceiling, Error, Lease, Result, disk};

/// A look at the free space of the disk costs a microsecond; the trees are measured when it says
/// that much was written, and in any case after so many looks: others may have freed as much.
const LOOKS: u64 = 50;
/// For a large tree that is less often: once for so many entries a look.
const ENTRIES_A_LOOK: u64 = 500;

/// What a running process writes to, under a ceiling.
///
/// What it will write isn't known beforehand, so a share is kept in reserve for it, and filled up
/// as it is used.
#[derive(Debug)]
pub struct Watch {
    lease: Lease,
    ceiling: Ceiling,
    trees: Vec<Tree>,
    free_bytes: u64,
    looks: u64,
}

#[derive(Debug)]
struct Tree {
    path: PathBuf,
    /// What is recorded of it, and needs no reservation.
    recorded_bytes: u64,
    reservation: Reservation,
}

impl Lease {
    /// Reserves room for a process that is about to write to `snapshots` and `mounts`. Returns
    /// what is to be looked at every few milliseconds until it has ended; `None` in a store
    /// without a ceiling.
    ///
    /// # Errors
    /// `FullDisk` if the ceiling is reached and nothing can be removed.
    pub fn watch<'a>(
        &self,
        snapshots: impl IntoIterator<Item = &'a ActiveSnapshot>,
        mounts: impl IntoIterator<Item = &'a CacheMountGuard>,
    ) -> Result<Option<Watch>> {
        let Some(ceiling) = self.store().ceiling() else {
            return Ok(None);
        };
        let slack = ceiling.slack_bytes();
        let mut trees = Vec::new();
        for snapshot in snapshots {
            let tree = Tree {
                path: snapshot.directory().to_owned(),
                recorded_bytes: 0,
                reservation: snapshot.reservation().clone(),
            };
            tree.cover(slack)?;
            trees.push(tree);
        }
        // What these hold is known, and may be too much to be measured for nothing.
        let mounts = mounts.into_iter().map(|mount| {
            let (path, recorded_bytes, reservation) = mount.accounts();
            Tree {
                path,
                recorded_bytes,
                reservation: reservation.clone(),
            }
        });
        for tree in mounts {
            tree.reservation.cover(slack)?;
            trees.push(tree);
        }
        Ok(Some(Watch {
            lease: self.clone(),
            ceiling,
            trees,
            free_bytes: self.store().disk_space()?.free_bytes,
            looks: LOOKS,
        }))
    }
}

impl Tree {
    /// Reserves what was written, and `slack` bytes more. Returns the number of entries.
    fn cover(&self, slack: u64) -> Result<u64> {
        let measured = disk::measure(&self.path)
            .map_err(|error| Error::io("cannot measure what a process writes", error))?;
        let written = measured.bytes.saturating_sub(self.recorded_bytes);
        self.reservation.cover(written.saturating_add(slack))?;
        Ok(measured.entry_count)
    }
}

impl Watch {
    /// Looks at what was written, and reserves more if it has become much.
    ///
    /// # Errors
    /// `FullDisk` if the ceiling is reached and nothing can be removed: the process must be ended.
    pub fn look(&mut self) -> Result<()> {
        let free = self.lease.store().disk_space()?.free_bytes;
        self.looks = self.looks.saturating_sub(1);
        let slack = self.ceiling.slack_bytes();
        if self.looks > 0 && self.free_bytes.saturating_sub(free) < slack / 2 {
            return Ok(());
        }
        let mut entries = 0;
        for tree in &self.trees {
            entries += tree.cover(slack)?;
        }
        self.free_bytes = free;
        self.looks = LOOKS.max(entries / ENTRIES_A_LOOK);
        Ok(())
    }
}
