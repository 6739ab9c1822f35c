//! Owns a renderer's thread, clock and terminal.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
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
#[derive(Debug)]
pub(crate) struct Display {
    sender: SyncSender<Message>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Message {
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
        let (sender, receiver) = sync_channel(QUEUE_LENGTH);
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || run(renderer, &receiver))?;
        Ok(Self { sender, thread })
    }

    /// Returns where the build's events go.
    pub(crate) fn sink(&self) -> impl EventSink + use<> {
        let sender = self.sender.clone();
        move |event| {
            // The display may have ended before the last event; the build's result is what counts.
            let _ = sender.send(Message::Event(Box::new(event)));
        }
    }

    /// Shows the end of the build, and returns when all is written.
    pub(crate) fn finish(self) {
        let asked = self.sender.send(Message::Finish);
        let ended = self.thread.join();
        if asked.is_err() || ended.is_err() {
            tracing::error!("the progress display ended early");
        }
    }
}

fn run(mut renderer: Box<dyn Renderer>, receiver: &Receiver<Message>) {
    let mut text = Vec::new();
    let mut refreshed: Option<Instant> = None;
    let mut wait = TICK;
    loop {
        match receiver.recv_timeout(wait) {
            Ok(Message::Event(event)) => renderer.event(&event, moment()),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let rested = refreshed.map_or(Duration::MAX, |at| at.elapsed());
        if rested < renderer.interval() {
            wait = renderer.interval().saturating_sub(rested);
            continue;
        }
        renderer.refresh(moment(), &mut text);
        write(&mut text);
        refreshed = Some(Instant::now());
        wait = TICK;
    }
    renderer.finish(moment(), &mut text);
    write(&mut text);
}

/// Writes the text in one piece. A build goes on even if nobody can see it any more, so an error
/// is no reason to stop.
fn write(text: &mut Vec<u8>) {
    if let Err(error) = output::stderr().write_all(text) {
        tracing::debug!(%error, "cannot write progress");
    }
    text.clear();
}

fn moment() -> Moment {
    let size = output::stderr_size().unwrap_or(DEFAULT_SIZE);
    Moment {
        now: Timestamp::now(),
        size,
    }
}
