//! What is thrown away: out of sight at once, off the disk soon after.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::io::Errno;

use crate::id::random_text;
use crate::layout::Layout;
use crate::{Error, ErrorKind, Result, disk};

/// More than there may be processors: who frees blocks waits for a disk that is told of each
/// (`mount -o discard`).
const REMOVER_COUNT: usize = 8;

/// Moves `path` out of sight, into the trash; nothing if it does not exist. Returns where to.
///
/// A crash after this leaves nothing that looks like a record.
pub(crate) fn discard(layout: &Layout, path: &Path) -> Result<PathBuf> {
    let discarded = layout.trash().join(random_text());
    match rustix::fs::rename(path, &discarded) {
        Ok(()) | Err(Errno::NOENT) => Ok(discarded),
        Err(errno) => Err(Error::io("cannot move a record to the trash", errno)),
    }
}

/// Removes all that lies in the trash. Several processes may do so at a time.
pub(crate) fn empty(layout: &Layout) -> Result<()> {
    for name in disk::entries(&layout.trash())? {
        disk::remove(&layout.trash().join(name))?;
    }
    Ok(())
}

/// Threads that remove what was discarded, while more is.
///
/// If this is dropped, they go on until all is removed, or the process ends: then the next sweep
/// finds the rest in the trash.
#[derive(Debug)]
pub(crate) struct Removers {
    queue: Sender<PathBuf>,
    discarded: Arc<Mutex<Receiver<PathBuf>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Removers {
    pub(crate) fn new() -> Self {
        let (queue, discarded) = mpsc::channel();
        Self {
            queue,
            discarded: Arc::new(Mutex::new(discarded)),
            threads: Vec::new(),
        }
    }

    /// Has the file or directory at `path` removed with all beneath it; nothing if it does not
    /// exist.
    pub(crate) fn remove(&mut self, path: PathBuf) -> Result<()> {
        if self.threads.len() < REMOVER_COUNT {
            let discarded = self.discarded.clone();
            let thread = std::thread::Builder::new()
                .name("larder-remove".to_owned())
                .spawn(move || remove_all(&discarded))
                .map_err(|error| Error::io("cannot start a thread", error))?;
            self.threads.push(thread);
        }
        let gone = |_| Error::new(ErrorKind::Internal, "who removes files is gone");
        self.queue.send(path).map_err(gone)
    }

    /// Returns whether there was anything to remove.
    pub(crate) fn have_begun(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Waits until all is removed.
    ///
    /// # Errors
    /// One of what could not be removed; all else is gone.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.queue);
        let died = |_| Err(Error::new(ErrorKind::Internal, "who removes files died"));
        let mut outcome = Ok(());
        for thread in self.threads {
            outcome = outcome.and(thread.join().unwrap_or_else(died));
        }
        outcome
    }
}

/// Removes what comes until no more can come. Returns the first failure.
fn remove_all(discarded: &Mutex<Receiver<PathBuf>>) -> Result<()> {
    let next = || {
        let discarded = discarded.lock().unwrap_or_else(PoisonError::into_inner);
        discarded.recv().ok()
    };
    let mut outcome = Ok(());
    while let Some(path) = next() {
        outcome = outcome.and(disk::remove(&path));
    }
    outcome
}
