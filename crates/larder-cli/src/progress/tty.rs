//! The live view: a table of steps, drawn over again as the build goes on.

use jiff::Timestamp;
use larder_engine::event::BuildEvent;

use super::colors::Paint;
use super::plain::amount;
use super::summary::{self, FAILURE_LINES, put};
use super::trace::{self, Note, Row, Trace, seconds_between};
use super::{Moment, Renderer, Size};
use crate::text::{one_line, visible};

/// A row needs this many columns for its name; on a narrower terminal it isn't shown.
const MIN_NAME_WIDTH: usize = 12;
/// The amount of bytes is shown only if the name still has about so many columns.
const MIN_WIDTH_WITH_AMOUNT: usize = 20;
/// Rows that stay free when the output of a step is shown.
const SPARE_ROWS: usize = 3;
/// Shorter times are shown as 0.0.
const SHORT_SECONDS: f64 = 0.05;

/// Renders events as a table that is drawn over again in place.
#[derive(Debug)]
pub(super) struct Tty {
    trace: Trace,
    paint: Paint,
    debug: bool,
    log_lines: usize,
    began: Option<Timestamp>,
    /// How many lines the last frame had.
    drawn: usize,
}

/// A line of the table.
#[derive(Debug)]
struct Line {
    text: String,
    /// Whether work on it goes on; other lines give way where space is short.
    running: bool,
}

impl Tty {
    /// Returns a renderer that shows the last `log_lines` lines of output of running steps.
    pub(super) fn new(paint: Paint, log_lines: usize, debug: bool) -> Self {
        Self {
            trace: Trace::new(FAILURE_LINES.max(log_lines)),
            paint,
            debug,
            log_lines,
            began: None,
            drawn: 0,
        }
    }
}

impl Renderer for Tty {
    fn event(&mut self, event: &BuildEvent, at: Moment) {
        self.began.get_or_insert(at.now);
        self.trace.event(event);
    }

    fn refresh(&mut self, at: Moment, out: &mut Vec<u8>) {
        let lines = self.lines(at, false);
        self.draw(&lines, out);
    }

    fn finish(&mut self, at: Moment, out: &mut Vec<u8>) {
        let lines = self.lines(at, true);
        self.draw(&lines, out);
        summary::failures(&self.trace, out);
        summary::warnings(self.trace.warnings(), self.debug, &self.paint, out);
    }
}

impl Tty {
    /// Draws a frame over the last one, in one piece: nothing is cleared before it is replaced.
    fn draw(&mut self, lines: &[String], out: &mut Vec<u8>) {
        // The cursor is hidden, and lines that are too wide after all are cut, not wrapped.
        out.extend_from_slice(b"\x1b[?25l\x1b[?7l");
        if self.drawn > 0 {
            put(out, format_args!("\r\x1b[{}A", self.drawn));
        }
        for line in lines {
            put(out, format_args!("{line}\x1b[K\n"));
        }
        out.extend_from_slice(b"\x1b[J\x1b[?7h\x1b[?25h");
        self.drawn = lines.len();
    }

    /// Returns the lines of a frame: all of them for the last one, else what fits the terminal.
    fn lines(&self, at: Moment, is_last: bool) -> Vec<String> {
        let mut lines = vec![self.header(at, is_last)];
        let room = at.size.height.saturating_sub(2);
        let with_output = if is_last {
            Vec::new()
        } else {
            self.rows_with_output(room)
        };
        let mut rows = Vec::new();
        for (index, row) in self.trace.started() {
            self.push_row(row, at, &mut rows);
            if with_output.contains(&index) {
                rows.extend(self.output(row, at.size));
            }
        }
        if !is_last {
            fit(&mut rows, room);
        }
        lines.extend(rows.into_iter().map(|line| line.text));
        lines
    }

    fn header(&self, at: Moment, is_last: bool) -> String {
        let counted = || self.trace.rows().iter().filter(|row| row.counts());
        let total = counted().count();
        let completed = counted().filter(|row| row.is_completed()).count();
        let seconds = self
            .began
            .map_or(0.0, |began| seconds_between(began, at.now).max(0.0));
        let end = if is_last && completed > 0 && completed == total {
            " FINISHED"
        } else {
            ""
        };
        let text = format!("[+] Building {seconds:.1}s ({completed}/{total}){end}");
        truncate(&text, at.size.width).to_owned()
    }

    /// Returns the running steps whose output is shown: those that write most, as many as fit.
    fn rows_with_output(&self, room: usize) -> Vec<usize> {
        let mut writers: Vec<(usize, &Row)> = self
            .trace
            .started()
            .filter(|(_, row)| !row.is_completed() && row.log.bytes_count > 0)
            .collect();
        writers.sort_by_key(|(_, row)| std::cmp::Reverse(row.log.bytes_count));
        let running = self.trace.started().filter(|(_, row)| !row.is_completed());
        let mut free = room.saturating_sub(running.count());
        let mut chosen = Vec::new();
        for (index, row) in writers {
            if free <= self.log_lines + SPARE_ROWS {
                break;
            }
            free -= row.log.lines.len().min(self.log_lines);
            chosen.push(index);
        }
        chosen
    }

    fn push_row(&self, row: &Row, at: Moment, lines: &mut Vec<Line>) {
        let width = at.size.width;
        let running = !row.is_completed();
        let (mark, paint): (_, fn(&Paint, &str) -> String) = match &row.error {
            Some(error) if trace::is_canceled(error) => ("CANCELED ", Paint::cancel),
            Some(_) => ("ERROR ", Paint::error),
            None if row.cached => ("CACHED ", Paint::run),
            None => ("", Paint::run),
        };
        let mut push = |name: &str,
                        amount: &str,
                        seconds: f64,
                        running: bool,
                        paint: fn(&Paint, &str) -> String| {
            let Some(text) = table_row(name, amount, seconds, width) else {
                return;
            };
            let text = if running {
                text
            } else {
                paint(&self.paint, &text)
            };
            lines.push(Line { text, running });
        };
        let name = format!("{mark}{}", one_line(&row.name));
        push(&name, "", row.seconds(at.now), running, paint);
        for status in &row.statuses {
            let name = format!("=> {}", one_line(&status.id));
            // A part of ended work has ended, too, even if nobody said so.
            let completed = status.completed.or(row.completed());
            let end = completed.unwrap_or(at.now);
            let seconds = status
                .started
                .map_or(0.0, |started| seconds_between(started, end).max(0.0));
            let amount = amount(status).unwrap_or_default();
            push(&name, &amount, seconds, completed.is_none(), Paint::run);
        }
        for note in &row.notes {
            let (text, paint): (_, fn(&Paint, &str) -> String) = match note {
                Note::Miss(cause) => (format!(" => => not cached: {cause}"), Paint::faint),
                Note::Warning(text) => (format!(" => => WARN: {text}"), Paint::warning),
            };
            let text = one_line(&text);
            lines.push(Line {
                text: paint(&self.paint, truncate(&text, width)),
                running,
            });
        }
    }

    fn output(&self, row: &Row, size: Size) -> Vec<Line> {
        let skipped = row.log.lines.len().saturating_sub(self.log_lines);
        row.log
            .lines
            .iter()
            .skip(skipped)
            .map(|line| visible(&line.text))
            .filter(|text| !text.trim().is_empty())
            .map(|text| Line {
                text: self
                    .paint
                    .faint(truncate(&format!(" => => # {text}"), size.width)),
                running: true,
            })
            .collect()
    }
}

/// Returns ` => name amount      1.2s`, one column narrower than the terminal; `None` if that is
/// too narrow to say anything.
fn table_row(name: &str, amount: &str, seconds: f64, width: usize) -> Option<String> {
    let seconds = if seconds < SHORT_SECONDS {
        0.0
    } else {
        seconds
    };
    let timer = format!(" {seconds:.1}s");
    let mut room = width.checked_sub(" => ".len() + timer.len() + 2)?;
    let show_amount = !amount.is_empty() && room + amount.len() > MIN_WIDTH_WITH_AMOUNT;
    if show_amount {
        room = room.checked_sub(amount.len() + 1)?;
    }
    if room < MIN_NAME_WIDTH {
        return None;
    }
    let mut left = format!(" => {}", truncate(name, room));
    if show_amount {
        left.push(' ');
        left.push_str(amount);
    }
    let padding = (width - timer.len() - 1).saturating_sub(left.chars().count());
    Some(format!("{left}{:padding$}{timer}", ""))
}

/// Drops lines until `room` are left: those of ended work first, the oldest first.
fn fit(lines: &mut Vec<Line>, room: usize) {
    let mut excess = lines.len().saturating_sub(room);
    lines.retain(|line| {
        let drop = excess > 0 && !line.running;
        excess -= usize::from(drop);
        !drop
    });
    lines.drain(..excess);
}

/// Returns the first `width` characters.
fn truncate(text: &str, width: usize) -> &str {
    match text.char_indices().nth(width) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
