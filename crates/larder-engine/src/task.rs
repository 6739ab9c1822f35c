//! Where work runs: named threads for what blocks, one lazily started runtime for what waits on
//! the network. A build that needs no registry starts no runtime.

use std::future::Future;
use std::sync::OnceLock;
use std::thread::{JoinHandle, Scope, ScopedJoinHandle};

use crate::cancel::CancelFlag;
use crate::error::{BuildError, ErrorClass, Result};

/// The threads and the runtime of an engine.
#[derive(Default)]
pub(crate) struct Tasks {
    runtime: OnceLock<tokio::runtime::Runtime>,
}

impl Tasks {
    /// Runs `work` on a thread of its own, named `name`, that `scope` joins.
    pub(crate) fn spawn<'scope, T: Send + 'scope>(
        scope: &'scope Scope<'scope, '_>,
        name: &str,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> std::io::Result<ScopedJoinHandle<'scope, T>> {
        // Linux shows 15 bytes of a thread's name.
        let name: String = name.chars().filter(char::is_ascii).take(15).collect();
        std::thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, work)
    }

    /// Runs `work` on a thread of its own, named `name`, that its owner joins.
    pub(crate) fn spawn_owned<T: Send + 'static>(
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<JoinHandle<T>> {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
    }

    /// Waits for `future` on the calling thread, unless `cancel` is set first. Must not be called from within a
    /// future.
    pub(crate) fn until_canceled<F: Future>(
        &self,
        cancel: &CancelFlag,
        future: F,
    ) -> Result<F::Output> {
        let either = async {
            tokio::select! {
                done = future => Ok(done),
                () = cancel.canceled() => Err(BuildError::canceled()),
            }
        };
        self.block_on(either)?
    }

    /// Waits for `future` on the calling thread. Must not be called from within a future.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> Result<F::Output> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.block_on(future));
        }
        let started = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("larder-net")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|source| {
                let what = "cannot start the network's runtime";
                BuildError::new(ErrorClass::Exhausted, what).with_source(source)
            })?;
        Ok(self.runtime.get_or_init(|| started).block_on(future))
    }
}
