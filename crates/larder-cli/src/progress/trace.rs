//! What is known of a build so far, one row per step shown.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;
use larder_engine::event::{
    BuildEvent, LogEvent, MissEvent, ProgressGroup, StatusEvent, VertexEvent, WarningEvent,
};
use larder_oci::Digest;

/// A longer line of output is broken: no step can make the display hold more.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;

/// All rows of a build, in the order in which they became known.
#[derive(Debug, Default)]
pub(super) struct Trace {
    rows: Vec<Row>,
    by_vertex: HashMap<Digest, usize>,
    by_group: HashMap<String, usize>,
    started: Vec<usize>,
    warnings: Vec<WarningEvent>,
    tail_lines: usize,
}

/// A step as shown: a vertex, or a group of vertices.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    /// Whether all of its vertices are.
    pub(super) cached: bool,
    /// The first error of its vertices.
    pub(super) error: Option<String>,
    /// When work was done on it, ordered, without overlap; only the last may be open.
    pub(super) spans: Vec<Span>,
    pub(super) statuses: Vec<StatusEvent>,
    pub(super) notes: Vec<Note>,
    /// The last lines of its output.
    pub(super) log: Log,
    /// No vertex that counts has begun. Groups of weak vertices alone stay hidden.
    hidden: bool,
    members: Vec<Member>,
    intervals: BTreeMap<(Timestamp, usize), Option<Timestamp>>,
}

/// A stretch of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: Timestamp,
    /// `None` while it goes on.
    pub(super) stop: Option<Timestamp>,
}

/// A line about a step that is no output of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// Why it was not cached.
    Miss(String),
    /// What the user should know.
    Warning(String),
}

/// The last lines of output.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) lines: VecDeque<LogLine>,
    /// Whether the last line may go on.
    partial: bool,
    /// How many bytes were written in all.
    pub(super) bytes_count: usize,
}

/// A line of output.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogLine {
    /// Since the step began.
    pub(super) seconds: f64,
    /// Without its end.
    pub(super) text: Vec<u8>,
}

#[derive(Debug)]
struct Member {
    digest: Digest,
    cached: bool,
    weak: bool,
    error: Option<String>,
}

/// How a row changed by an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) row: usize,
    /// Whether there is something to show; a row that has not begun isn't shown.
    pub(super) visible: bool,
}

impl Trace {
    /// Returns an empty trace that keeps the last `tail_lines` lines of each step's output.
    pub(super) fn new(tail_lines: usize) -> Self {
        Self {
            tail_lines,
            ..Self::default()
        }
    }

    /// Takes an event. Returns the row it changed; `None` for one about an unknown vertex.
    pub(super) fn event(&mut self, event: &BuildEvent) -> Option<Change> {
        match event {
            BuildEvent::Vertex(event) => Some(self.vertex(event)),
            BuildEvent::Status(event) => self.status(event),
            BuildEvent::Log(event) => self.log(event),
            BuildEvent::Warning(event) => {
                self.warnings.push(event.clone());
                self.note(&event.vertex, Note::Warning(event.short.clone()))
            }
            BuildEvent::Miss(MissEvent { vertex, cause }) => {
                self.note(vertex, Note::Miss(cause.to_string()))
            }
        }
    }

    pub(super) fn row(&self, index: usize) -> &Row {
        &self.rows[index]
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the rows to show, in the order in which they began.
    pub(super) fn started(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.started.iter().map(|&index| (index, &self.rows[index]))
    }

    /// Returns the warnings, in order.
    pub(super) fn warnings(&self) -> &[WarningEvent] {
        &self.warnings
    }

    fn vertex(&mut self, event: &VertexEvent) -> Change {
        let index = match &event.progress_group {
            None => self.row_of_vertex(event),
            Some(group) => self.row_of_group(group),
        };
        self.by_vertex.insert(event.digest.clone(), index);
        let row = &mut self.rows[index];
        let was_started = row.is_visible();
        let changed = row.update(event);
        let visible = row.is_visible();
        if visible && !was_started {
            self.started.push(index);
        }
        Change {
            row: index,
            visible: visible && (changed || !was_started),
        }
    }

    fn row_of_vertex(&mut self, event: &VertexEvent) -> usize {
        if let Some(&index) = self.by_vertex.get(&event.digest) {
            return index;
        }
        self.rows.push(Row {
            name: event.name.clone(),
            ..Row::default()
        });
        self.rows.len() - 1
    }

    fn row_of_group(&mut self, group: &ProgressGroup) -> usize {
        if let Some(&index) = self.by_group.get(&group.id) {
            return index;
        }
        self.rows.push(Row {
            name: group.name.clone(),
            hidden: true,
            ..Row::default()
        });
        self.by_group.insert(group.id.clone(), self.rows.len() - 1);
        self.rows.len() - 1
    }

    fn status(&mut self, event: &StatusEvent) -> Option<Change> {
        let index = *self.by_vertex.get(&event.vertex)?;
        let row = &mut self.rows[index];
        match row.statuses.iter_mut().find(|known| known.id == event.id) {
            Some(known) => known.clone_from(event),
            None => row.statuses.push(event.clone()),
        }
        Some(self.change(index))
    }

    fn log(&mut self, event: &LogEvent) -> Option<Change> {
        let index = *self.by_vertex.get(&event.vertex)?;
        let row = &mut self.rows[index];
        let seconds = row.seconds_at(event.timestamp);
        row.log.push(&event.data, seconds, self.tail_lines);
        Some(self.change(index))
    }

    fn note(&mut self, vertex: &Digest, note: Note) -> Option<Change> {
        let index = *self.by_vertex.get(vertex)?;
        self.rows[index].notes.push(note);
        Some(self.change(index))
    }

    fn change(&self, row: usize) -> Change {
        Change {
            row,
            visible: self.rows[row].is_visible(),
        }
    }
}

impl Row {
    /// Whether it is shown: work on it began, and it is not a group of weak vertices alone.
    pub(super) fn is_visible(&self) -> bool {
        !self.hidden && !self.spans.is_empty()
    }

    /// Whether it counts among the steps of the build.
    pub(super) fn counts(&self) -> bool {
        !self.hidden
    }

    pub(super) fn is_completed(&self) -> bool {
        self.completed().is_some()
    }

    /// Returns when the last work on it ended.
    pub(super) fn completed(&self) -> Option<Timestamp> {
        self.spans.last().and_then(|span| span.stop)
    }

    /// Returns how long it was worked on up to `now`, in seconds.
    pub(super) fn seconds(&self, now: Timestamp) -> f64 {
        let length = |span: &Span| seconds_between(span.start, span.stop.unwrap_or(now)).max(0.0);
        self.spans.iter().map(length).sum()
    }

    /// Returns the time since it began its current work.
    pub(super) fn seconds_at(&self, at: Timestamp) -> f64 {
        self.spans
            .last()
            .map_or(0.0, |span| seconds_between(span.start, at).max(0.0))
    }

    /// Returns the error, unless it is that the step was canceled.
    pub(super) fn failure(&self) -> Option<&str> {
        self.error.as_deref().filter(|error| !is_canceled(error))
    }

    /// Takes the state of one of its vertices. Returns whether anything shown changed.
    fn update(&mut self, event: &VertexEvent) -> bool {
        let member = self.member(event);
        let Some(started) = event.started else {
            // A vertex may be announced again; that doesn't undo what it has done.
            return false;
        };
        let before = (self.spans.clone(), self.cached, self.error.clone());
        self.members[member].cached = event.cached;
        self.members[member].error.clone_from(&event.error);
        self.intervals.insert((started, member), event.completed);
        self.spans = merge(&self.intervals);
        self.cached = self.members.iter().all(|member| member.cached);
        self.error = self.members.iter().find_map(|member| member.error.clone());
        if !self.members[member].weak || self.error.is_some() {
            self.hidden = false;
        }
        before != (self.spans.clone(), self.cached, self.error.clone())
    }

    fn member(&mut self, event: &VertexEvent) -> usize {
        let known = |member: &Member| member.digest == event.digest;
        if let Some(position) = self.members.iter().position(known) {
            return position;
        }
        self.members.push(Member {
            digest: event.digest.clone(),
            cached: false,
            weak: event
                .progress_group
                .as_ref()
                .is_some_and(|group| group.weak),
            error: None,
        });
        self.members.len() - 1
    }
}

impl Log {
    fn push(&mut self, data: &[u8], seconds: f64, keep: usize) {
        self.bytes_count += data.len();
        for (text, complete) in lines(data) {
            match self.lines.back_mut().filter(|_| self.partial) {
                Some(last) => last.text.extend_from_slice(text),
                None => self.lines.push_back(LogLine {
                    seconds,
                    text: text.to_vec(),
                }),
            }
            let length = self.lines.back().map_or(0, |line| line.text.len());
            self.partial = !complete && length < MAX_LINE_BYTES;
        }
        while self.lines.len() > keep {
            self.lines.pop_front();
        }
    }
}

impl LogLine {
    /// Returns the line with its time before it, `0.080 text`.
    pub(super) fn timed(&self) -> Vec<u8> {
        let decimals = match self.seconds {
            seconds if seconds < 10.0 => 3,
            seconds if seconds < 100.0 => 2,
            _ => 1,
        };
        let mut line = format!("{:.decimals$} ", self.seconds).into_bytes();
        line.extend_from_slice(&self.text);
        line
    }
}

/// Splits output into lines without their ends; the last may be incomplete.
pub(super) fn lines(data: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    data.split_inclusive(|&byte| byte == b'\n')
        .flat_map(|line| match line.split_last() {
            Some((b'\n', text)) => chunks(text, true),
            _ => chunks(line, false),
        })
}

/// Breaks a line that is too long.
fn chunks(text: &[u8], complete: bool) -> Vec<(&[u8], bool)> {
    if text.len() <= MAX_LINE_BYTES {
        return vec![(text, complete)];
    }
    let mut parts: Vec<_> = text
        .chunks(MAX_LINE_BYTES)
        .map(|part| (part, true))
        .collect();
    if let Some(last) = parts.last_mut() {
        last.1 = complete;
    }
    parts
}

/// Whether an error says that the step was canceled.
pub(super) fn is_canceled(error: &str) -> bool {
    error.ends_with("context canceled")
}

pub(super) fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64()
}

/// Joins intervals that touch. An open one takes in all that begin after it.
fn merge(intervals: &BTreeMap<(Timestamp, usize), Option<Timestamp>>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (&(start, _), &stop) in intervals {
        match spans.last_mut() {
            Some(Span { stop: None, .. }) => {}
            Some(last) if last.stop >= Some(start) => {
                last.stop = stop.map(|stop| last.stop.map_or(stop, |known| known.max(stop)));
            }
            _ => spans.push(Span { start, stop }),
        }
    }
    spans
}
