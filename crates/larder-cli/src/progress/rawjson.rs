//! The machine-readable form: one JSON object a line, BuildKit's `SolveStatus`.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use larder_engine::event::{
    BuildEvent, LogEvent, LogStream, ProgressGroup, StatusEvent, VertexEvent, WarningEvent,
};
use larder_oci::Digest;
use serde::Serialize;

use super::{Moment, Renderer};

/// Renders events as BuildKit's `SolveStatus`, one line for each refresh. The causes of misses
/// have no place in it.
#[derive(Debug, Default)]
pub(super) struct RawJson {
    pending: SolveStatus,
}

#[derive(Debug, Default, Serialize)]
struct SolveStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Vertex {
    digest: Digest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Digest>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Timestamp>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_group: Option<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    weak: bool,
}

#[derive(Debug, Serialize)]
struct Status {
    id: String,
    vertex: Digest,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Log {
    vertex: Digest,
    stream: u8,
    data: String,
    timestamp: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning {
    vertex: Digest,
    #[serde(skip_serializing_if = "is_zero")]
    level: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

#[derive(Debug, Serialize)]
struct SourceInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
}

#[derive(Debug, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Serialize)]
struct Position {
    line: u32,
}

impl Renderer for RawJson {
    fn event(&mut self, event: &BuildEvent, _: Moment) {
        match event {
            BuildEvent::Vertex(event) => self.pending.vertexes.push(event.into()),
            BuildEvent::Status(event) => self.pending.statuses.push(event.into()),
            BuildEvent::Log(event) => self.pending.logs.push(event.into()),
            BuildEvent::Warning(event) => self.pending.warnings.push(event.into()),
            BuildEvent::Miss(_) => {}
        }
    }

    fn refresh(&mut self, _: Moment, out: &mut Vec<u8>) {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return;
        }
        let mut serializer = serde_json::Serializer::with_formatter(&mut *out, GoFormatter);
        pending
            .serialize(&mut serializer)
            .expect("strings, numbers and times always serialize");
        out.push(b'\n');
    }

    fn finish(&mut self, at: Moment, out: &mut Vec<u8>) {
        self.refresh(at, out);
    }

    fn interval(&self) -> Duration {
        Duration::ZERO
    }
}

/// Returns a warning as BuildKit's clients write it.
pub(crate) fn warning(event: &WarningEvent) -> serde_json::Value {
    serde_json::to_value(Warning::from(event)).expect("strings and numbers always serialize")
}

impl SolveStatus {
    fn is_empty(&self) -> bool {
        self.vertexes.is_empty()
            && self.statuses.is_empty()
            && self.logs.is_empty()
            && self.warnings.is_empty()
    }
}

impl From<&VertexEvent> for Vertex {
    fn from(event: &VertexEvent) -> Self {
        Self {
            digest: event.digest.clone(),
            inputs: event.inputs.clone(),
            name: event.name.clone(),
            started: event.started,
            completed: event.completed,
            cached: event.cached,
            error: event.error.clone(),
            progress_group: event.progress_group.as_ref().map(Group::from),
        }
    }
}

impl From<&ProgressGroup> for Group {
    fn from(group: &ProgressGroup) -> Self {
        Self {
            id: group.id.clone(),
            name: group.name.clone(),
            weak: group.weak,
        }
    }
}

impl From<&StatusEvent> for Status {
    fn from(event: &StatusEvent) -> Self {
        Self {
            id: event.id.clone(),
            vertex: event.vertex.clone(),
            name: action(&event.id),
            total: event.total,
            current: event.current,
            timestamp: event.timestamp,
            started: event.started,
            completed: event.completed,
        }
    }
}

/// Returns what BuildKit calls the kind of work; it names only transfers of files.
fn action(id: &str) -> &'static str {
    if id.starts_with("transferring ") || id.starts_with("copying files") {
        "transferring"
    } else {
        ""
    }
}

impl From<&LogEvent> for Log {
    fn from(event: &LogEvent) -> Self {
        Self {
            vertex: event.vertex.clone(),
            stream: match event.stream {
                LogStream::Stdout => 1,
                LogStream::Stderr => 2,
            },
            data: STANDARD.encode(&event.data),
            timestamp: event.timestamp,
        }
    }
}

impl From<&WarningEvent> for Warning {
    fn from(event: &WarningEvent) -> Self {
        Self {
            vertex: event.vertex.clone(),
            level: u64::from(event.level),
            short: STANDARD.encode(&event.short),
            detail: event
                .detail
                .iter()
                .map(|line| STANDARD.encode(line))
                .collect(),
            url: event.url.clone(),
            source_info: event.source.as_ref().map(|source| SourceInfo {
                filename: source.filename.clone(),
                data: STANDARD.encode(&source.data),
                language: source.language.clone(),
            }),
            range: event
                .ranges
                .iter()
                .map(|range| Range {
                    start: Position { line: range.start },
                    end: Position { line: range.end },
                })
                .collect(),
        }
    }
}

/// Writes strings as Go does: `<`, `>`, `&` and the two Unicode line ends are escaped.
struct GoFormatter;

impl serde_json::ser::Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let is_escaped = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some(position) = rest.find(is_escaped) {
            let (plain, escaped) = rest.split_at(position);
            writer.write_all(plain.as_bytes())?;
            let mut characters = escaped.chars();
            if let Some(character) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
