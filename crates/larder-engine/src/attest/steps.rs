//! The graph of a build, as a provenance shows it: numbered steps.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_llb::http::HttpSource;
use larder_llb::{Definition, Vertex, pb};
use larder_oci::Digest;
use serde_json::{Map, Value, json};

use crate::web;

/// What names the client that serves a local source; no part of the build.
const CLIENT_ATTRS: [&str; 2] = ["local.session", "local.unique"];
/// The address of a repository, as it was given.
const GIT_URL: &str = "git.fullurl";

/// A graph with its numbers.
pub(crate) struct Steps<'a> {
    definition: &'a Definition,
    /// Inputs before those that read them, as BuildKit counts.
    order: Vec<&'a Vertex>,
    numbers: BTreeMap<&'a Digest, usize>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(definition: &'a Definition) -> Self {
        let mut steps = Self {
            definition,
            order: Vec::new(),
            numbers: BTreeMap::new(),
        };
        let result = definition
            .result()
            .and_then(|edge| definition.get(&edge.vertex));
        let mut stack: Vec<(&Vertex, usize)> =
            result.map(|vertex| (vertex, 0)).into_iter().collect();
        while let Some((vertex, next)) = stack.pop() {
            if steps.numbers.contains_key(&vertex.digest) {
                continue;
            }
            if let Some(input) = vertex.inputs.get(next) {
                stack.push((vertex, next + 1));
                stack.extend(definition.get(&input.vertex).map(|input| (input, 0)));
                continue;
            }
            steps.numbers.insert(&vertex.digest, steps.order.len());
            steps.order.push(vertex);
        }
        steps
    }

    /// Returns the name of the result, `step4:0`.
    pub(crate) fn result(&self) -> Option<String> {
        let result = self.definition.result()?;
        Some(format!(
            "step{}:{}",
            self.numbers.get(&result.vertex)?,
            result.index
        ))
    }

    /// Returns the steps, and which digests they have.
    pub(crate) fn build_config(&self) -> Value {
        let mut steps: Vec<Value> = Vec::with_capacity(self.order.len() + 1);
        let mut digests: BTreeMap<String, String> = BTreeMap::new();
        for (number, vertex) in self.order.iter().enumerate() {
            let mut op = vertex.op.clone();
            op.inputs.clear();
            if let Some(pb::op::Op::Source(source)) = &mut op.op {
                redact(source);
            }
            let inputs = vertex.inputs.iter();
            let inputs =
                inputs.map(|input| format!("step{}:{}", self.numbers[&input.vertex], input.index));
            steps.push(step(number, &op, inputs.collect()));
            digests.insert(vertex.digest.to_string(), format!("step{number}"));
        }
        if let (Some(result), Some(last)) = (self.result(), self.definition.to_pb().def.last()) {
            let number = self.order.len();
            steps.push(step(number, &pb::Op::default(), vec![result]));
            digests.insert(Digest::sha256(last).to_string(), format!("step{number}"));
        }
        json!({"llbDefinition": steps, "digestMapping": digests})
    }

    /// Returns the files that the graph was made from, and where its steps stand in them.
    pub(crate) fn source(&self) -> Option<Value> {
        let files = self.definition.sources();
        if files.is_empty() {
            return None;
        }
        let infos = files.iter().map(|file| {
            json!({
                "filename": file.filename,
                "language": file.language,
                "data": STANDARD.encode(&file.data),
            })
        });
        let mut locations = Map::new();
        for (number, vertex) in self.order.iter().enumerate() {
            let found = self.definition.locations(&vertex.digest);
            if found.is_empty() {
                continue;
            }
            let found = found.iter().map(|(index, ranges)| {
                let mut location = Map::new();
                if *index > 0 {
                    location.insert("sourceIndex".to_owned(), json!(index));
                }
                let ranges = ranges.iter().map(
                    |range| json!({"start": {"line": range.start}, "end": {"line": range.end}}),
                );
                location.insert("ranges".to_owned(), ranges.collect());
                Value::Object(location)
            });
            let found: Vec<Value> = found.collect();
            locations.insert(format!("step{number}"), json!({"locations": found}));
        }
        Some(json!({"locations": locations, "infos": infos.collect::<Vec<_>>()}))
    }
}

/// Takes out of a source what is about the client, and passwords.
fn redact(source: &mut pb::SourceOp) {
    source
        .attrs
        .retain(|name, _| !CLIENT_ATTRS.contains(&name.as_str()));
    if HttpSource::parse(source).is_some() {
        source.identifier = web::shown(&source.identifier);
    }
    if let Some(url) = source.attrs.get_mut(GIT_URL) {
        *url = web::shown(url);
    }
}

fn step(number: usize, op: &pb::Op, inputs: Vec<String>) -> Value {
    let mut json = Map::from_iter([("id".to_owned(), format!("step{number}").into())]);
    let op = serde_json::to_value(op).unwrap_or_default();
    json.insert("op".to_owned(), op);
    if !inputs.is_empty() {
        json.insert("inputs".to_owned(), inputs.into());
    }
    json.into()
}
