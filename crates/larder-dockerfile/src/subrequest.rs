//! What can be asked of a Dockerfile in place of building it. The answers are those of BuildKit's
//! subrequests `frontend.outline`, `frontend.targets` and `frontend.subrequests.describe`.

mod describe;
mod outline;
mod table;
mod targets;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_llb::SourceRange;
use serde_json::{Map, Value, json};

pub use describe::describe;
pub use outline::{Outline, OutlineArg, OutlineCache, OutlineMount};
pub use targets::{Target, Targets};

/// The answer to a subrequest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For programs, without a line end: BuildKit's `result.json`.
    pub json: String,
    /// For people: BuildKit's `result.txt`.
    pub text: String,
}

/// Adds a field that Go's encoder leaves out where it is empty.
fn add(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let is_empty = match &value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    if !is_empty {
        object.insert(key.to_owned(), value);
    }
}

/// Returns where something stands; nothing for what stands in no line.
fn location(ranges: &[SourceRange]) -> Value {
    if ranges.is_empty() {
        return Value::Null;
    }
    let ranges = ranges
        .iter()
        .map(|range| json!({"start": {"line": range.start}, "end": {"line": range.end}}));
    json!({"ranges": ranges.collect::<Vec<_>>()})
}

fn sources(text: &[u8]) -> Value {
    json!([STANDARD.encode(text)])
}
