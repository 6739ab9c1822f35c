//! The plain form: numbered blocks, one line an event, readable in a log file.

use jiff::Timestamp;
use larder_engine::event::{BuildEvent, StatusEvent};

use super::colors::Paint;
use super::summary::{self, FAILURE_LINES, put};
use super::trace::{self, LogLine, Note, Row, Trace, seconds_between};
use super::{Moment, Renderer};
use crate::units::Bytes;

/// Progress of a status is shown again after this share of the whole, or this time.
const STATUS_SHARE: f64 = 0.05;
const STATUS_SECONDS: f64 = 5.0;
/// A running step that was not shown for so long gets its turn.
const HIDDEN_SECONDS: f64 = 10.0;
/// A step keeps the display at least about so long before a busier one gets it.
const TURN_SECONDS: f64 = 5.0;
/// Shorter times of a status are not shown.
const SHORT_SECONDS: f64 = 0.01;

/// Renders events as plain text.
#[derive(Debug)]
pub(super) struct Plain {
    trace: Trace,
    debug: bool,
    heading: String,
    /// What was printed of each row of the trace, by its index.
    blocks: Vec<Block>,
    /// The block that is open.
    current: Option<usize>,
    numbers_given: usize,
    begun: bool,
}

/// What was printed of a row.
#[derive(Debug, Default)]
struct Block {
    number: Option<usize>,
    /// Whether there is something new to print.
    changed: bool,
    notes_printed: usize,
    statuses: Vec<StatusPrint>,
    output: Output,
    /// How much happened since `since`, and so how fast it goes.
    events_count: usize,
    since: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct StatusPrint {
    changed: bool,
    /// What was shown last.
    shown: Option<(u64, Timestamp)>,
}

/// Lines of output that wait to be printed.
#[derive(Debug, Default)]
struct Output {
    lines: Vec<LogLine>,
    /// Whether the last line may go on.
    partial: bool,
    /// How much of the first line, with its time, stands on the screen already.
    printed_bytes: usize,
}

impl Plain {
    /// Returns a renderer. `heading` is printed as block 0, if it is not empty; `debug` expands
    /// the warnings at the end.
    pub(super) fn new(heading: impl Into<String>, debug: bool) -> Self {
        Self {
            trace: Trace::new(FAILURE_LINES),
            debug,
            heading: heading.into(),
            blocks: Vec::new(),
            current: None,
            numbers_given: 0,
            begun: false,
        }
    }
}

impl Renderer for Plain {
    fn event(&mut self, event: &BuildEvent, at: Moment) {
        let Some(change) = self.trace.event(event) else {
            return;
        };
        if self.blocks.len() < self.trace.rows().len() {
            self.blocks
                .resize_with(self.trace.rows().len(), Block::default);
        }
        let row = self.trace.row(change.row);
        let block = &mut self.blocks[change.row];
        match event {
            BuildEvent::Status(event) => block.status_changed(row, event),
            BuildEvent::Log(event) => block
                .output
                .push(&event.data, row.seconds_at(event.timestamp)),
            _ => {}
        }
        if change.visible {
            block.changed = true;
            block.count(at.now);
        }
    }

    fn refresh(&mut self, at: Moment, out: &mut Vec<u8>) {
        let completed = self.changed_rows(Row::is_completed);
        for &row in &completed {
            self.print(row, at, out);
        }
        let running = self.changed_rows(|row| !row.is_completed());
        if running.is_empty() {
            self.keep_one_open(at, out);
            return;
        }
        if let Some(current) = self.current.filter(|row| running.contains(row)) {
            self.print(current, at, out);
        }
        if let Some(next) = self.next_turn(&running, at.now) {
            self.print(next, at, out);
        }
    }

    fn finish(&mut self, at: Moment, out: &mut Vec<u8>) {
        self.refresh(at, out);
        // Nothing that was said may stay unsaid because another step had the display.
        for row in self.changed_rows(|_| true) {
            self.print(row, at, out);
        }
        summary::failures(&self.trace, out);
        summary::warnings(self.trace.warnings(), self.debug, &Paint::new(None), out);
    }
}

impl Plain {
    /// Returns the rows with something to print: the open block's first, then by the time they
    /// ended.
    fn changed_rows(&self, wanted: impl Fn(&Row) -> bool) -> Vec<usize> {
        let mut rows: Vec<usize> = self
            .trace
            .started()
            .filter(|&(index, row)| self.blocks[index].changed && wanted(row))
            .map(|(index, _)| index)
            .collect();
        rows.sort_by_key(|&index| {
            let is_other = self.current != Some(index);
            (is_other, self.trace.row(index).completed())
        });
        rows
    }

    /// Opens the block of a running step, if none is open.
    fn keep_one_open(&mut self, at: Moment, out: &mut Vec<u8>) {
        let is_running = |row: &Row| !row.is_completed();
        if self
            .current
            .is_some_and(|current| is_running(self.trace.row(current)))
        {
            return;
        }
        let open = self.trace.started().find(|(_, row)| is_running(row));
        if let Some((index, _)) = open {
            self.print(index, at, out);
        }
    }

    /// Returns the step whose block is to be opened now, in place of the open one.
    fn next_turn(&self, running: &[usize], now: Timestamp) -> Option<usize> {
        let waiting = |index: usize| {
            let block = &self.blocks[index];
            block.since.map_or(0.0, |since| seconds_between(since, now))
        };
        // A moment counts as a millisecond, so that what just began has a speed.
        let speed =
            |index: usize| self.blocks[index].events_count as f64 / waiting(index).max(0.001);
        let others = || {
            running
                .iter()
                .copied()
                .filter(|&index| self.current != Some(index))
        };
        let fastest = others().max_by(|&a, &b| speed(a).total_cmp(&speed(b)).then(b.cmp(&a)))?;
        let Some(current) = self.current else {
            return Some(fastest);
        };
        if let Some(hidden) = others().find(|&index| waiting(index) > HIDDEN_SECONDS) {
            return Some(hidden);
        }
        let sum: f64 = others().map(speed).sum::<f64>() + speed(current);
        let share_of_others = 1.0 - speed(current) / sum;
        let turn_is_over = TURN_SECONDS / share_of_others < waiting(current);
        (turn_is_over && speed(fastest) > speed(current)).then_some(fastest)
    }

    /// Prints what is new of a row, and its end if it has ended.
    fn print(&mut self, index: usize, at: Moment, out: &mut Vec<u8>) {
        let number = self.open(index, out);
        let row = self.trace.row(index);
        let block = &mut self.blocks[index];
        block.changed = false;
        block.print_notes(number, row, out);
        let has_open_status = block.print_statuses(number, row, out);
        block.output.print(number, out);
        if row.is_completed() && !has_open_status {
            block.output.end_line(out);
            block.events_count = 0;
            self.current = None;
            print_end(number, row, at.now, out);
        }
    }

    /// Opens the block of a row, closing another. Returns the row's number.
    fn open(&mut self, index: usize, out: &mut Vec<u8>) -> usize {
        let number = *self.blocks[index].number.get_or_insert_with(|| {
            self.numbers_given += 1;
            self.numbers_given
        });
        if self.current == Some(index) {
            return number;
        }
        if let Some(previous) = self.current.replace(index) {
            let block = &mut self.blocks[previous];
            block.output.interrupt(out);
            block.events_count = 0;
            if let Some(number) = block.number {
                put(out, format_args!("#{number} ...\n"));
            }
        }
        if !self.begun && !self.heading.is_empty() {
            put(out, format_args!("#0 {}\n", self.heading));
            self.begun = true;
        }
        if self.begun {
            out.push(b'\n');
        }
        self.begun = true;
        put(
            out,
            format_args!("#{number} {}\n", self.trace.row(index).name),
        );
        number
    }
}

impl Block {
    fn count(&mut self, now: Timestamp) {
        if self.events_count == 0 {
            self.since = Some(now);
        }
        self.events_count += 1;
    }

    fn status_changed(&mut self, row: &Row, event: &StatusEvent) {
        self.statuses
            .resize_with(row.statuses.len(), StatusPrint::default);
        if let Some(position) = row.statuses.iter().position(|known| known.id == event.id) {
            self.statuses[position].changed = true;
        }
    }

    fn print_notes(&mut self, number: usize, row: &Row, out: &mut Vec<u8>) {
        for note in &row.notes[self.notes_printed..] {
            match note {
                Note::Miss(cause) => put(out, format_args!("#{number} not cached: {cause}\n")),
                Note::Warning(text) => put(out, format_args!("#{number} WARN: {text}\n")),
            }
        }
        self.notes_printed = row.notes.len();
    }

    /// Prints the statuses that changed. Returns whether one of them is still open.
    fn print_statuses(&mut self, number: usize, row: &Row, out: &mut Vec<u8>) -> bool {
        let mut has_open = false;
        for (status, print) in row.statuses.iter().zip(&mut self.statuses) {
            if !std::mem::take(&mut print.changed) || !print.is_due(status) {
                continue;
            }
            print.shown = Some((status.current, status.timestamp));
            has_open |= status.completed.is_none();
            self.output.interrupt(out);
            put(out, format_args!("#{number} {}\n", status_line(status)));
        }
        has_open
    }
}

impl StatusPrint {
    fn is_due(&self, status: &StatusEvent) -> bool {
        let Some((current, at)) = self.shown.filter(|_| status.completed.is_none()) else {
            return true;
        };
        let share = match status.total {
            0 => 0.0,
            total => (status.current as f64 - current as f64) / total as f64,
        };
        share >= STATUS_SHARE || seconds_between(at, status.timestamp) >= STATUS_SECONDS
    }
}

impl Output {
    fn push(&mut self, data: &[u8], seconds: f64) {
        for (text, complete) in trace::lines(data) {
            match self.lines.last_mut().filter(|_| self.partial) {
                Some(last) => last.text.extend_from_slice(text),
                None => self.lines.push(LogLine {
                    seconds,
                    text: text.to_vec(),
                }),
            }
            let length = self.lines.last().map_or(0, |line| line.text.len());
            self.partial = !complete && length < trace::MAX_LINE_BYTES;
        }
    }

    fn print(&mut self, number: usize, out: &mut Vec<u8>) {
        let count = self.lines.len();
        for (position, line) in self.lines.iter().enumerate() {
            let timed = line.timed();
            let printed = std::mem::take(&mut self.printed_bytes);
            if printed == 0 {
                put(out, format_args!("#{number} "));
            }
            out.extend_from_slice(&timed[printed..]);
            if position + 1 == count && self.partial {
                self.printed_bytes = timed.len();
            } else {
                out.push(b'\n');
            }
        }
        let done = count - usize::from(self.partial && count > 0);
        self.lines.drain(..done);
    }

    /// Ends the line on the screen; if there is more of it, it will be printed anew.
    fn interrupt(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.printed_bytes) > 0 {
            out.push(b'\n');
        }
    }

    /// Ends the line on the screen for good.
    fn end_line(&mut self, out: &mut Vec<u8>) {
        self.interrupt(out);
        self.lines.clear();
        self.partial = false;
    }
}

fn print_end(number: usize, row: &Row, now: Timestamp, out: &mut Vec<u8>) {
    match &row.error {
        Some(error) if trace::is_canceled(error) => put(out, format_args!("#{number} CANCELED\n")),
        Some(error) => put(out, format_args!("#{number} ERROR: {error}\n")),
        None if row.cached => put(out, format_args!("#{number} CACHED\n")),
        None => put(
            out,
            format_args!("#{number} DONE {:.1}s\n", row.seconds(now)),
        ),
    }
}

/// Returns `transferring context: 1.98MB 0.2s done`.
fn status_line(status: &StatusEvent) -> String {
    let amount = amount(status).map(|amount| format!(" {amount}"));
    let end = status.completed.unwrap_or(status.timestamp);
    let time = status
        .started
        .map(|started| seconds_between(started, end))
        .filter(|seconds| *seconds > SHORT_SECONDS)
        .map(|seconds| format!(" {seconds:.1}s"));
    let done = status.completed.map(|_| " done".to_owned());
    let parts = [amount, time, done].into_iter().flatten();
    std::iter::once(status.id.clone()).chain(parts).collect()
}

/// Returns the bytes done, and of how many if that is known.
pub(super) fn amount(status: &StatusEvent) -> Option<String> {
    let current = Bytes(status.current);
    match (status.current, status.total) {
        (0, 0) => None,
        (_, 0) => Some(current.to_string()),
        (_, total) => Some(format!("{current} / {}", Bytes(total))),
    }
}
