//! Shows a build while it runs: events in, text out.
//!
//! Renderers are pure. They take events and the time, and append text; [`display`] owns the
//! thread, the clock and the terminal.

mod colors;
mod display;
mod plain;
mod quiet;
pub(crate) mod rawjson;
mod summary;
mod trace;
mod tty;

#[cfg(test)]
mod golden;

use std::time::Duration;

use jiff::Timestamp;
use larder_engine::event::BuildEvent;

pub(crate) use colors::Colors;
pub(crate) use display::{Display, Mode, Options};

/// How often a renderer that gathers changes shows them.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// What the text is shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Columns.
    pub(crate) width: usize,
    /// Rows.
    pub(crate) height: usize,
}

/// The moment of a rendering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The time, by the clock of the events.
    pub(crate) now: Timestamp,
    /// The size of the terminal; of no meaning where there is none.
    pub(crate) size: Size,
}

/// Turns events into text, appended to `out`.
pub(crate) trait Renderer: Send {
    /// Takes one event.
    fn event(&mut self, event: &BuildEvent, at: Moment);

    /// Shows what is due.
    fn refresh(&mut self, at: Moment, out: &mut Vec<u8>);

    /// Shows all that is left, and what the user must know at the end: the last lines of failed
    /// steps, the warnings.
    fn finish(&mut self, at: Moment, out: &mut Vec<u8>);

    /// How long changes may be gathered before they are shown.
    fn interval(&self) -> Duration {
        REFRESH_INTERVAL
    }
}
