use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// The threads that compress a stream.
#[derive(Clone)]
pub struct Threads {
    count: usize,
    begin: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Threads {
    /// Returns `count` threads; with one, the caller's compresses.
    pub fn new(count: usize) -> Self {
        Self { count, begin: None }
    }

    /// Lets each thread that is started do `begin` first.
    #[must_use]
    pub fn beginning_with(self, begin: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            begin: Some(Arc::new(begin)),
            ..self
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Starts a thread.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let begin = self.begin.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Some(begin) = begin {
                begin();
            }
            work()
        })
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Threads").field(&self.count).finish()
    }
}
