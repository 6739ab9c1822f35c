//! What signals do: the first cancels, the second skips the tidy end, the third ends at once.

use std::io::{self, Write};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};

use crate::exit;

/// As often a process is asked to end before it is killed, as `docker run` does.
const FORWARDED_ENDS: u32 = 3;

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

/// Writes the number of each signal that is meant for a running process to `forward`. The third
/// SIGINT or SIGTERM calls `give_up` instead.
pub(crate) fn forward(
    mut forward: impl Write + Send + 'static,
    give_up: impl Fn() + Send + 'static,
) -> io::Result<Listener> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
    let handle = signals.handle();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut ends = 0;
            for signal in signals.forever() {
                ends += u32::from(matches!(signal, SIGINT | SIGTERM));
                let number = u8::try_from(signal).unwrap_or_default();
                // Nobody reads any more when the process has just ended.
                let is_heard = forward.write_all(&[number]).is_ok();
                if ends >= FORWARDED_ENDS || !is_heard {
                    give_up();
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
