//! Removal of what crashes left behind.

use std::collections::HashSet;
use std::path::Path;

use crate::lock::{Existing, FileLock, LockMode};
use crate::{Result, Store, disk, lease};

/// How long the rest of a download that broke off is kept.
const KEEP_PARTIAL: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

impl Store {
    /// Removes what dead processes left; a dead lease is a sign that one crashed, and has files
    /// without rows looked for, too.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.sweep_partials()?;
        let crashed = self.sweep_leases()?;
        if crashed {
            let _publications = self.lock_removal()?;
            self.sweep_unreferenced()?;
        }
        self.sweep_cache_mounts()?;
        disk::empty_trash(self.layout())
    }

    /// Removes the files of dead leases, and their unfinished things. Returns whether there were.
    fn sweep_leases(&self) -> Result<bool> {
        let mut crashed = false;
        for id in disk::entries(&self.layout().leases())? {
            let path = self.layout().lease(&id);
            if let Existing::Locked(lock) = FileLock::attempt_existing(&path, LockMode::Exclusive)?
            {
                crashed = true;
                lock.remove()?;
            }
        }
        // A lease's directory is made after, and removed before its file.
        for id in disk::entries(&self.layout().tmp())? {
            if !lease::is_live(self, &id)? {
                crashed = true;
                disk::discard(self.layout(), &self.layout().tmp().join(&id))?;
            }
        }
        if crashed {
            self.write(|tx| lease::end_dead(self, tx).map(|_| ()))?;
        }
        Ok(crashed)
    }

    /// Moves files and directories without a row to the trash. The caller has locked removal, so
    /// whatever has no row now never gets one.
    pub(crate) fn sweep_unreferenced(&self) -> Result<()> {
        let layout = self.layout();
        self.sweep_directory(&layout.snapshots(), "SELECT id FROM snapshots")?;
        self.sweep_directory(&layout.cache_mounts(), "SELECT id FROM cache_mounts")?;
        self.sweep_directory(
            &layout.blobs(),
            "SELECT substr(digest, length('sha256:') + 1) FROM blobs",
        )
    }

    fn sweep_directory(&self, directory: &Path, known: &str) -> Result<()> {
        let names = disk::entries(directory)?;
        let known: HashSet<String> = self.read(|db| {
            let mut list = db.prepare_cached(known)?;
            let rows = list.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        for name in names.iter().filter(|name| !known.contains(*name)) {
            tracing::debug!(name, "unreferenced files are removed");
            disk::discard(self.layout(), &directory.join(name))?;
        }
        Ok(())
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
