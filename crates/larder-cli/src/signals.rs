//! What signals do: the first cancels, the second skips the tidy end, the third ends at once.

use std::io;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::exit;

/// How urgently the user wants an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Let steps end and clean up.
    Cancel,
    /// Kill steps; leave what is left to the next command.
    Force,
}

/// Listens while it lives.
#[derive(Debug)]
pub(crate) struct Listener(Handle);

/// Calls `stop` at the first and the second SIGINT or SIGTERM; ends the process at the third.
pub(crate) fn listen(stop: impl Fn(Stop) + Send + 'static) -> io::Result<Listener> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let handle = signals.handle();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for (count, _) in signals.forever().enumerate() {
                match count {
                    0 => stop(Stop::Cancel),
                    1 => stop(Stop::Force),
                    _ => std::process::exit(i32::from(exit::CANCELED)),
                }
            }
        })?;
    Ok(Listener(handle))
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.close();
    }
}
