use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How soon who waits for the network notices.
const POLL: Duration = Duration::from_millis(50);

/// Asks work to end early. Copies share one state; once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_set: AtomicBool,
    /// Running processes, which are ended with the flag.
    processes: Mutex<Vec<larder_exec::Cancel>>,
}

impl CancelFlag {
    /// Returns a flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end.
    pub fn set(&self) {
        let processes = self
            .0
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.0.is_set.store(true, Ordering::SeqCst);
        processes.iter().for_each(larder_exec::Cancel::cancel);
    }

    /// Returns whether the end was asked for.
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Returns an error if the end was asked for.
    ///
    /// # Errors
    /// Of class [`Canceled`](crate::ErrorClass::Canceled).
    pub fn check(&self) -> crate::Result<()> {
        if self.is_set() {
            Err(crate::BuildError::canceled())
        } else {
            Ok(())
        }
    }

    /// Waits until the end is asked for.
    pub(crate) async fn canceled(&self) {
        while !self.is_set() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets the flag end a process, too.
    pub(crate) fn ends(&self, process: &larder_exec::Cancel) {
        let mut processes = self
            .0
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.is_set() {
            process.cancel();
        }
        processes.push(process.clone());
    }
}
