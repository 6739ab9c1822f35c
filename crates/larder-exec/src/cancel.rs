use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;

use crate::{Error, Result};

/// Ends runs from another thread. Clones are the same flag; once raised it stays raised, for all
/// runs that were given it, also later ones.
#[derive(Debug, Clone)]
pub struct Cancel {
    event: Arc<OwnedFd>,
}

impl Cancel {
    /// Returns a flag that is not raised.
    pub fn new() -> Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::system("cannot create an event", errno))?;
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Raises the flag: processes are killed, and their runs return
    /// [`Outcome::Canceled`](crate::Outcome::Canceled).
    pub fn cancel(&self) {
        // Refused only if the counter is full, and then the flag is raised.
        let raised = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
        tracing::trace!(?raised, "cancel");
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
