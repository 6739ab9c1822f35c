//! Processes under the ceiling of the store.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use larder_exec::Cancel;
use larder_store::Watch;

use crate::error::{BuildError, ErrorClass, Result};
use crate::task::Tasks;

/// Between two looks at what a process writes.
const INTERVAL: Duration = Duration::from_millis(20);

/// Returns what `run` returns, which runs a process; if there is something to `watch`, the process
/// is ended through `cancel` as soon as it would pass the ceiling.
///
/// # Errors
/// Of class `Exhausted` if it was ended so.
pub(crate) fn run<T>(watch: Option<Watch>, cancel: &Cancel, run: impl FnOnce() -> T) -> Result<T> {
    let Some(watch) = watch else {
        return Ok(run());
    };
    let failed = |source| {
        BuildError::new(ErrorClass::Exhausted, "cannot start a thread").with_source(source)
    };
    std::thread::scope(|scope| {
        let (ended, ends) = mpsc::channel::<()>();
        let watcher = Tasks::spawn(scope, "watch", move || look(watch, &ends, cancel));
        let watcher = watcher.map_err(failed)?;
        let value = run();
        drop(ended);
        let looked = watcher.join();
        looked.map_err(|_| BuildError::internal("the watch of a step panicked"))??;
        Ok(value)
    })
}

/// Looks until the other end of `ends` is dropped.
fn look(mut watch: Watch, ends: &mpsc::Receiver<()>, cancel: &Cancel) -> Result<()> {
    while ends.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = watch.look() {
            cancel.cancel();
            return Err(error.into());
        }
    }
    Ok(())
}
