//! What leases protect: written to their files, as lines after what is reserved, where others read
//! it who would remove something.

use std::collections::HashSet;
use std::io;

use larder_oci::Digest;

use super::is_live;
use crate::ceiling::ENTRY_BYTES;
use crate::lock::FileLock;
use crate::{Error, Result, SnapshotId, Store, disk};

/// Begins the line of a snapshot.
const SNAPSHOT: char = 's';
/// Begins the line of a blob.
const BLOB: char = 'b';

/// Snapshots and blobs that are not to be removed.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) snapshots: HashSet<SnapshotId>,
    pub(crate) blobs: HashSet<Digest>,
    /// The length in bytes of the lines in the lease's file.
    written_bytes: u64,
}

impl Held {
    /// Adds what is not there yet, and writes it to the file of the lease that holds `lock`.
    ///
    /// Others trust it as soon as this returns. If it fails, more may be protected than is known
    /// here, which does no harm.
    pub(super) fn add(
        &mut self,
        lock: &FileLock,
        snapshots: &[SnapshotId],
        blobs: &[Digest],
    ) -> Result<()> {
        let mut lines = String::new();
        for id in snapshots.iter().filter(|id| !self.snapshots.contains(*id)) {
            line(&mut lines, SNAPSHOT, id.as_str());
        }
        for digest in blobs.iter().filter(|digest| !self.blobs.contains(*digest)) {
            line(&mut lines, BLOB, digest.as_str());
        }
        if lines.is_empty() {
            return Ok(());
        }
        let failed = |error: io::Error| Error::io("cannot protect what a build uses", error);
        let mut rest = lines.as_bytes();
        while !rest.is_empty() {
            let offset = ENTRY_BYTES as u64 + self.written_bytes;
            let count = rustix::io::pwrite(lock.file(), rest, offset)
                .map_err(|errno| failed(errno.into()))?;
            if count == 0 {
                return Err(failed(io::ErrorKind::WriteZero.into()));
            }
            self.written_bytes += count as u64;
            rest = &rest[count..];
        }
        self.snapshots.extend(snapshots.iter().cloned());
        self.blobs.extend(blobs.iter().cloned());
        Ok(())
    }

    /// Adds what the file of a lease says. The end of a line may still be missing.
    fn read(&mut self, file: &[u8]) {
        let lines = file.get(ENTRY_BYTES..).unwrap_or_default();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                continue;
            };
            let line = std::str::from_utf8(line).unwrap_or_default();
            if let Some(id) = line.strip_prefix(SNAPSHOT) {
                self.snapshots.extend(id.parse::<SnapshotId>());
            } else if let Some(digest) = line.strip_prefix(BLOB) {
                self.blobs.extend(digest.parse::<Digest>());
            }
        }
    }
}

fn line(lines: &mut String, kind: char, name: &str) {
    lines.push(kind);
    lines.push_str(name);
    lines.push('\n');
}

/// Returns the leases whose owners live.
pub(crate) fn living(store: &Store) -> Result<HashSet<String>> {
    let mut living = HashSet::new();
    for id in disk::entries(&store.layout().leases())? {
        if is_live(store, &id)? {
            living.insert(id);
        }
    }
    Ok(living)
}

/// Returns what the leases `living` protect, without what the snapshots build on. It is good for a
/// removal as long as the caller has locked removal.
pub(crate) fn held<'a>(
    store: &Store,
    living: impl IntoIterator<Item = &'a String>,
) -> Result<Held> {
    let mut held = Held::default();
    for id in living {
        match std::fs::read(store.layout().lease(id)) {
            Ok(file) => held.read(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("cannot read a lease", error)),
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_but_for_a_line_without_an_end() {
        let (id, digest) = (SnapshotId::random(), Digest::sha256("blob"));
        let whole = format!("12345678s{id}\nb{digest}\n");
        for (length, snapshots, blobs) in [
            (0, 0, 0),
            (7, 0, 0),
            (8, 0, 0),
            (20, 0, 0),
            (8 + 2 + id.as_str().len(), 1, 0),
            (whole.len() - 1, 1, 0),
            (whole.len(), 1, 1),
        ] {
            let mut held = Held::default();
            held.read(&whole.as_bytes()[..length]);
            let count = (held.snapshots.len(), held.blobs.len());
            assert_eq!(count, (snapshots, blobs), "{length} bytes");
        }
    }
}
