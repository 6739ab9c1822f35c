//! Threads of a run, each of which takes work after work: to start one costs as much as a small step.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Scope;

use crate::task::Tasks;

type Work<'scope> = Box<dyn FnOnce() + Send + 'scope>;

/// Starts as many threads as there is work at a time. Dropped, it lets them end.
pub(super) struct Threads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    shared: Arc<Shared<'scope>>,
}

#[derive(Default)]
struct Shared<'scope> {
    state: Mutex<State<'scope>>,
    has_news: Condvar,
}

#[derive(Default)]
struct State<'scope> {
    waiting: VecDeque<Work<'scope>>,
    /// How many threads wait for work.
    idle: usize,
    /// Work that takes its turn.
    queue: VecDeque<Work<'scope>>,
    /// How many threads are at the queue.
    queue_threads: usize,
    is_over: bool,
}

impl<'scope, 'env> Threads<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Self {
            scope,
            shared: Arc::default(),
        }
    }

    /// Does `work`, which doesn't panic, at once: on a thread that has none, else on a new one.
    ///
    /// # Errors
    /// When no thread can be started. The work is then not done.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'scope) -> std::io::Result<()> {
        let mut state = self.shared.state();
        if state.waiting.len() < state.idle {
            state.waiting.push_back(Box::new(work));
            self.shared.has_news.notify_one();
            return Ok(());
        }
        drop(state);
        let shared = Arc::clone(&self.shared);
        Tasks::spawn(self.scope, "step", move || {
            work();
            shared.serve();
        })?;
        Ok(())
    }

    /// Does `work`, which neither panics nor waits, in its turn: there are as many threads for all such
    /// work as processors. It is done by the caller where no thread can be started.
    pub(super) fn enqueue(&self, work: impl FnOnce() + Send + 'scope) {
        let mut state = self.shared.state();
        state.queue.push_back(Box::new(work));
        if state.queue_threads >= processor_count() {
            return;
        }
        state.queue_threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        if self.spawn(move || shared.drain()).is_err() {
            self.shared.drain();
        }
    }
}

fn processor_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

impl Drop for Threads<'_, '_> {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.has_news.notify_all();
    }
}

impl<'scope> Shared<'scope> {
    fn state(&self) -> MutexGuard<'_, State<'scope>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is in the queue.
    fn drain(&self) {
        loop {
            let mut state = self.state();
            let Some(work) = state.queue.pop_front() else {
                state.queue_threads -= 1;
                return;
            };
            drop(state);
            work();
        }
    }

    /// Does what comes until it is over.
    fn serve(&self) {
        while let Some(work) = self.next() {
            work();
        }
    }

    fn next(&self) -> Option<Work<'scope>> {
        let mut state = self.state();
        state.idle += 1;
        loop {
            if let Some(work) = state.waiting.pop_front() {
                state.idle -= 1;
                return Some(work);
            }
            if state.is_over {
                return None;
            }
            let waited = self.has_news.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::channel;
    use std::thread::ThreadId;

    use super::*;

    #[test]
    fn work_at_a_time_has_a_thread_each_and_later_work_none_of_its_own() {
        let (told, heard) = channel();
        let threads_of = |count: usize| {
            let heard = heard.iter().take(count);
            heard.collect::<HashSet<ThreadId>>()
        };
        std::thread::scope(|scope| {
            let threads = Threads::new(scope);
            let barrier = Arc::new(std::sync::Barrier::new(3));
            for _ in 0..3 {
                let (told, barrier) = (told.clone(), barrier.clone());
                let work = move || {
                    // Goes on when all three are at it.
                    barrier.wait();
                    told.send(std::thread::current().id()).unwrap();
                };
                threads.spawn(work).unwrap();
            }
            let three = threads_of(3);
            assert_eq!(three.len(), 3);
            while threads.shared.state().idle < 3 {
                std::thread::yield_now();
            }
            for _ in 0..20 {
                let told = told.clone();
                let work = move || told.send(std::thread::current().id()).unwrap();
                threads.spawn(work).unwrap();
                assert!(threads_of(1).is_subset(&three));
                while threads.shared.state().idle < 3 {
                    std::thread::yield_now();
                }
            }
        });
    }
}
