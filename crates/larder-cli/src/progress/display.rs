//! Owns a renderer's thread, clock and terminal.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use larder_engine::event::{BuildEvent, EventSink};

use super::colors::{Colors, Paint};
use super::plain::Plain;
use super::quiet::Quiet;
use super::rawjson::RawJson;
use super::tty::Tty;
use super::{Moment, Renderer, Size};
use crate::output;

/// How long the display may rest when nothing happens; clocks on it go on.
const TICK: Duration = Duration::from_millis(150);
/// How long events are gathered before they are shown: to wake a thread for each would cost as much as
/// finding a step in the cache, and nobody sees the difference.
const GATHER: Duration = Duration::from_millis(4);
/// Events that may wait to be shown. A step that writes faster than the terminal takes it waits.
const QUEUE_LENGTH: usize = 1024;
const DEFAULT_SIZE: Size = Size {
    width: 80,
    height: 24,
};

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// A live view on a terminal, else plain text.
    Auto,
    /// A live view.
    Tty,
    /// Plain text.
    Plain,
    /// Nothing but the image's id.
    Quiet,
    /// Nothing.
    None,
    /// BuildKit's `SolveStatus` as JSON, one object a line.
    #[value(name = "rawjson")]
    RawJson,
}

/// What the user may set about the display.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Block 0 of the plain form; empty for none.
    pub(crate) heading: String,
    /// `None` means no colour.
    pub(crate) colors: Option<Colors>,
    /// Lines of output shown of each running step on a terminal.
    pub(crate) log_lines: usize,
    /// Whether warnings are shown in full.
    pub(crate) debug: bool,
}

/// A build's display. Dropped without [`Display::finish`], it just ends.
pub(crate) struct Display(Shown);

enum Shown {
    /// While the build goes on, by a thread.
    Live {
        sender: SyncSender<Message>,
        thread: JoinHandle<()>,
    },
    /// Nothing before the end.
    AtTheEnd(Arc<Mutex<Box<dyn Renderer>>>),
}

/// What a display's thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    Event(Box<BuildEvent>),
    Finish,
}

impl Mode {
    /// Returns the mode to use on this standard error: never `Auto`.
    pub(crate) fn resolve(self) -> Self {
        match self {
            Self::Auto if output::stderr_is_terminal() => Self::Tty,
            Self::Auto => Self::Plain,
            other => other,
        }
    }

    fn renderer(self, options: Options) -> Box<dyn Renderer> {
        match self {
            Self::Tty => Box::new(Tty::new(
                Paint::new(options.colors),
                options.log_lines,
                options.debug,
            )),
            Self::Auto | Self::Plain => Box::new(Plain::new(options.heading, options.debug)),
            Self::Quiet | Self::None => Box::new(Quiet::new()),
            Self::RawJson => Box::<RawJson>::default(),
        }
    }
}

impl Display {
    /// Starts to show a build on standard error.
    pub(crate) fn start(mode: Mode, options: Options) -> std::io::Result<Self> {
        let renderer = mode.renderer(options);
        if let Mode::Quiet | Mode::None = mode {
            let renderer = Arc::new(Mutex::new(renderer));
            return Ok(Self(Shown::AtTheEnd(renderer)));
        }
        let (sender, receiver) = sync_channel(QUEUE_LENGTH);
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || run(renderer, &receiver, write_stderr))?;
        Ok(Self(Shown::Live { sender, thread }))
    }

    /// Returns where the build's events go.
    pub(crate) fn sink(&self) -> Sink {
        match &self.0 {
            Shown::Live { sender, .. } => Sink::Live(sender.clone()),
            Shown::AtTheEnd(renderer) => Sink::AtTheEnd(renderer.clone()),
        }
    }

    /// Shows the end of the build, and returns when all is written.
    pub(crate) fn finish(self) {
        match self.0 {
            Shown::Live { sender, thread } => {
                let asked = sender.send(Message::Finish);
                thread.thread().unpark();
                let ended = thread.join();
                if asked.is_err() || ended.is_err() {
                    tracing::error!("the progress display ended early");
                }
            }
            Shown::AtTheEnd(renderer) => {
                let mut text = Vec::new();
                locked(&renderer).finish(moment(), &mut text);
                write_stderr(&text);
            }
        }
    }
}

/// Where a build's events go.
pub(crate) enum Sink {
    Live(SyncSender<Message>),
    AtTheEnd(Arc<Mutex<Box<dyn Renderer>>>),
}

impl EventSink for Sink {
    fn event(&self, event: BuildEvent) {
        match self {
            // The display may have ended before the last event; the build's result is what counts.
            Self::Live(sender) => drop(sender.send(Message::Event(Box::new(event)))),
            Self::AtTheEnd(renderer) => {
                let now = Timestamp::now();
                let size = DEFAULT_SIZE;
                locked(renderer).event(&event, Moment { now, size });
            }
        }
    }
}

fn locked(renderer: &Mutex<Box<dyn Renderer>>) -> MutexGuard<'_, Box<dyn Renderer>> {
    renderer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Renders what comes until it ends. `write` gets whole refreshes.
fn run(
    mut renderer: Box<dyn Renderer>,
    receiver: &Receiver<Message>,
    mut write: impl FnMut(&[u8]),
) {
    let mut text = Vec::new();
    let mut refreshed: Option<Instant> = None;
    let mut wait = TICK;
    loop {
        let first = match receiver.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Some(Message::Event(_)) = first {
            // Cut short when the build ends.
            std::thread::park_timeout(GATHER);
        }
        let gathered = first.into_iter().chain(receiver.try_iter());
        if tell(&mut *renderer, gathered.take(QUEUE_LENGTH), &mut text).is_break() {
            break;
        }
        let rested = refreshed.map_or(Duration::MAX, |at| at.elapsed());
        if rested < renderer.interval() {
            wait = renderer.interval().saturating_sub(rested);
            continue;
        }
        renderer.refresh(moment(), &mut text);
        write(&text);
        text.clear();
        refreshed = Some(Instant::now());
        wait = TICK;
    }
    renderer.finish(moment(), &mut text);
    write(&text);
}

/// Tells the renderer what happened, up to the end of the build. One that shows each event by itself does so.
fn tell(
    renderer: &mut dyn Renderer,
    messages: impl Iterator<Item = Message>,
    text: &mut Vec<u8>,
) -> ControlFlow<()> {
    let now = moment();
    let one_by_one = renderer.interval().is_zero();
    for message in messages {
        match message {
            Message::Event(event) => renderer.event(&event, now),
            Message::Finish => return ControlFlow::Break(()),
        }
        if one_by_one {
            renderer.refresh(now, text);
        }
    }
    ControlFlow::Continue(())
}

/// Writes the text in one piece. A build goes on even if nobody can see it any more, so an error
/// is no reason to stop.
fn write_stderr(text: &[u8]) {
    if let Err(error) = output::stderr().write_all(text) {
        tracing::debug!(%error, "cannot write progress");
    }
}

fn moment() -> Moment {
    let size = output::stderr_size().unwrap_or(DEFAULT_SIZE);
    Moment {
        now: Timestamp::now(),
        size,
    }
}

#[cfg(test)]
mod tests {
    use larder_engine::event::{LogEvent, LogStream, VertexEvent};
    use larder_oci::Digest;

    use super::*;

    /// Returns what a mode shows of a step that writes `count` lines.
    fn show(mode: Mode, count: usize) -> String {
        let options = Options {
            heading: String::new(),
            colors: None,
            log_lines: 6,
            debug: false,
        };
        let (sender, receiver) = sync_channel(QUEUE_LENGTH);
        let renderer = mode.renderer(options);
        let thread = std::thread::spawn(move || {
            let mut shown = Vec::new();
            run(renderer, &receiver, |text| shown.extend_from_slice(text));
            String::from_utf8(shown).unwrap()
        });
        let send = |event| sender.send(Message::Event(Box::new(event))).unwrap();
        let vertex = |completed| {
            BuildEvent::Vertex(VertexEvent {
                digest: Digest::sha256("step"),
                inputs: Vec::new(),
                name: "RUN step".to_owned(),
                started: Some(Timestamp::UNIX_EPOCH),
                completed,
                cached: false,
                error: None,
                progress_group: None,
            })
        };
        send(vertex(None));
        for number in 0..count {
            send(BuildEvent::Log(LogEvent {
                vertex: Digest::sha256("step"),
                stream: LogStream::Stdout,
                data: format!("line {number}\n").into_bytes(),
                timestamp: Timestamp::UNIX_EPOCH,
            }));
        }
        send(vertex(Some(Timestamp::UNIX_EPOCH)));
        sender.send(Message::Finish).unwrap();
        thread.join().unwrap()
    }

    #[test]
    fn nothing_is_lost_when_more_comes_than_fits_the_queue() {
        let count = 3 * QUEUE_LENGTH;
        let shown = show(Mode::Plain, count);
        assert!(shown.starts_with("#1 RUN step\n#1 0.000 line 0\n"));
        assert!(shown.ends_with(&format!("line {}\n#1 DONE 0.0s\n", count - 1)));
        assert_eq!(shown.lines().count(), count + 2);
        assert_eq!(show(Mode::RawJson, count).lines().count(), count + 2);
    }

    #[test]
    fn quiet_modes_show_nothing_of_a_build_that_works() {
        assert_eq!(show(Mode::Quiet, 5), "");
        assert_eq!(show(Mode::None, 5), "");
    }
}
