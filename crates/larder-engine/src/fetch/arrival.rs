//! A blob that is read while it arrives.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How much of a blob is in its file: told by who writes it, awaited by who reads it.
///
/// Nothing is held in memory, and the reader never keeps the writer waiting.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    readable_bytes: u64,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All bytes are in the file.
    Whole,
    /// What was read may be wrong, and the rest does not come.
    Broken,
}

impl Arrival {
    /// Tells which file the blob comes into, and how much of it is there already. A blob that begins
    /// for the second time, elsewhere, is broken.
    pub(super) fn begin(&self, file: File, readable_bytes: u64) {
        let mut state = self.state();
        if state.file.is_some() {
            state.end = Some(End::Broken);
        } else {
            state.file = Some(Arc::new(file));
            state.readable_bytes = readable_bytes;
        }
        self.changed.notify_all();
    }

    /// Tells how much is in the file.
    pub(super) fn grow(&self, readable_bytes: u64) {
        let mut state = self.state();
        if state.readable_bytes != readable_bytes {
            state.readable_bytes = readable_bytes;
            self.changed.notify_all();
        }
    }

    /// Tells that what came was wrong, or that no more comes.
    pub(super) fn break_off(&self) {
        self.end(End::Broken);
    }

    /// Returns what breaks the blob off when it goes, unless it was finished.
    pub(super) fn ending(&self) -> Ending<'_> {
        Ending(self)
    }

    /// Returns whether a reader may have seen something else than the blob.
    pub(super) fn is_broken(&self) -> bool {
        self.state().end == Some(End::Broken)
    }

    /// Reads the blob from its beginning, and waits for what has not come yet.
    pub(super) fn reader(&self) -> impl Read {
        Arriving {
            arrival: self,
            offset: 0,
        }
    }

    fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Waits for bytes beyond `offset`. Returns the file and how many bytes it has; `None` at the end.
    fn wait(&self, offset: u64) -> io::Result<Option<(Arc<File>, u64)>> {
        let mut state = self.state();
        loop {
            if state.end == Some(End::Broken) {
                return Err(io::Error::other("the blob did not arrive as a whole"));
            }
            match &state.file {
                Some(file) if state.readable_bytes > offset => {
                    return Ok(Some((Arc::clone(file), state.readable_bytes)));
                }
                _ if state.end == Some(End::Whole) => return Ok(None),
                _ => {}
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that a reader does not wait for good.
pub(super) struct Ending<'a>(&'a Arrival);

impl Ending<'_> {
    /// Tells that all bytes are in the file.
    pub(super) fn finish(self) {
        self.0.end(End::Whole);
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.break_off();
    }
}

struct Arriving<'a> {
    arrival: &'a Arrival,
    offset: u64,
}

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((file, readable_bytes)) = self.arrival.wait(self.offset)? else {
            return Ok(0);
        };
        let there = usize::try_from(readable_bytes - self.offset).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(there);
        let count = file.read_at(&mut buffer[..wanted], self.offset)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Returns what a reader gets of a blob that `write` lets arrive.
    fn read_while(write: impl FnOnce(&Arrival, &mut File)) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        let arrival = Arrival::default();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut bytes = Vec::new();
                arrival.reader().read_to_end(&mut bytes).map(|_| bytes)
            });
            write(&arrival, &mut file);
            reading.join().unwrap()
        })
    }

    #[test]
    fn a_reader_gets_what_is_told_to_be_there() {
        let read = read_while(|arrival, file| {
            file.write_all(b"earlier ").unwrap();
            arrival.begin(file.try_clone().unwrap(), 8);
            file.write_all(b"and later").unwrap();
            arrival.grow(11);
            arrival.grow(17);
            arrival.ending().finish();
        });
        assert_eq!(read.unwrap(), b"earlier and later");
        let nothing = read_while(|arrival, _| arrival.ending().finish());
        assert_eq!(nothing.unwrap(), b"");
    }

    #[test]
    fn a_reader_learns_that_the_rest_does_not_come() {
        let cases: [fn(&Arrival, &mut File); 3] = [
            |arrival, _| arrival.break_off(),
            |arrival, file| {
                file.write_all(b"wrong").unwrap();
                arrival.begin(file.try_clone().unwrap(), 5);
                arrival.break_off();
                arrival.ending().finish();
            },
            |arrival, file| {
                arrival.begin(file.try_clone().unwrap(), 0);
                arrival.begin(file.try_clone().unwrap(), 0);
                arrival.ending().finish();
            },
        ];
        for case in cases {
            assert!(read_while(case).is_err());
        }
    }
}
