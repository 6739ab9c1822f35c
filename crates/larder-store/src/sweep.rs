//! Removal of what crashes left behind.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::lock::{Existing, FileLock, LockMode};
use crate::{Result, Store, disk, lease, trash};

/// How long the rest of a download that broke off is kept.
const KEEP_PARTIAL: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

impl Store {
    /// Removes what dead processes left. Prune and garbage collection begin with it.
    ///
    /// A lease without a living owner is the sign of a crash; only then are files without a
    /// record looked for.
    pub fn sweep(&self) -> Result<()> {
        self.sweep_partials()?;
        let dead = self.dead_leases()?;
        let mut crashed = !dead.is_empty();
        for id in disk::entries(&self.layout().tmp())? {
            let is_dead = dead.iter().any(|(dead, _)| *dead == id);
            if is_dead || !lease::is_live(self, &id)? {
                crashed = true;
                trash::discard(self.layout(), &self.layout().tmp().join(&id))?;
            }
        }
        if crashed {
            let _publications = self.lock_removal()?;
            self.sweep_unreferenced()?;
        }
        if crashed {
            self.sweep_lost_cache_mounts()?;
            self.measure_cache_mounts()?;
        }
        // Last, so that a crash of ours leaves the signs of the earlier one.
        for (_, lock) in dead {
            lock.remove()?;
        }
        self.sweep_detached()?;
        trash::empty(self.layout())
    }

    /// Returns the leases whose owners are dead, with their locks.
    fn dead_leases(&self) -> Result<Vec<(String, FileLock)>> {
        let mut dead = Vec::new();
        for id in disk::entries(&self.layout().leases())? {
            let path = self.layout().lease(&id);
            if let Existing::Locked(lock) = FileLock::attempt_existing(&path, LockMode::Exclusive)?
            {
                dead.push((id, lock));
            }
        }
        Ok(dead)
    }

    /// Moves files and directories without a record to the trash. The caller has locked removal,
    /// so whatever has no row now never gets one.
    pub(crate) fn sweep_unreferenced(&self) -> Result<()> {
        for path in self.unreferenced()? {
            tracing::debug!(path = %path.display(), "unreferenced files are removed");
            trash::discard(self.layout(), &path)?;
        }
        Ok(())
    }

    /// Returns the files and directories among blobs, snapshots and cache mounts that have no
    /// row.
    pub(crate) fn unreferenced(&self) -> Result<Vec<PathBuf>> {
        let layout = self.layout();
        let blobs = "SELECT substr(digest, length('sha256:') + 1) FROM blobs";
        let kinds = [
            (layout.snapshots(), "SELECT id FROM snapshots"),
            (layout.cache_mounts(), "SELECT id FROM cache_mounts"),
            (layout.blobs(), blobs),
        ];
        let mut paths = Vec::new();
        for (directory, known) in kinds {
            // Listed first: what is published after the listing is not in it.
            let names = disk::entries(&directory)?;
            let known: HashSet<String> = self.read(|db| {
                let mut list = db.prepare_cached(known)?;
                let rows = list.query_map([], |row| row.get(0))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })?;
            let unknown = names.iter().filter(|name| !known.contains(*name));
            paths.extend(unknown.map(|name| directory.join(name)));
        }
        Ok(paths)
    }

    /// Removes old rests of downloads that nobody is at.
    fn sweep_partials(&self) -> Result<()> {
        let oldest = self.now() - KEEP_PARTIAL.as_nanos() as i64;
        for name in disk::entries(&self.layout().partials())? {
            let path = self.layout().partials().join(name);
            let Existing::Locked(lock) = FileLock::attempt_existing(&path, LockMode::Exclusive)?
            else {
                continue;
            };
            let stat = rustix::fs::fstat(lock.file())
                .map_err(|errno| crate::Error::io("cannot inspect a partial download", errno))?;
            let modified = stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64;
            if modified < oldest {
                lock.remove()?;
            }
        }
        Ok(())
    }
}
