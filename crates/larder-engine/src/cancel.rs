use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks work to end early. Copies share one state; once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Returns a flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Returns whether the end was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns an error if the end was asked for.
    ///
    /// # Errors
    /// Of class [`Canceled`](crate::ErrorClass::Canceled).
    pub fn check(&self) -> crate::Result<()> {
        if self.is_set() { Err(crate::BuildError::canceled()) } else { Ok(()) }
    }
}
