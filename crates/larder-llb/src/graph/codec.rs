//! The wire form of a graph.

use std::collections::HashMap;

use larder_oci::Digest;
use prost::Message;

use super::builder::GraphBuilder;
use super::{Definition, Edge, GraphError, SourceFile, SourceRange};
use crate::{caps, pb};

/// How many ops a definition may have.
const MAX_OPS: usize = 100_000;

/// An op, and the bytes that its digest is of.
pub(super) struct Decoded {
    pub(super) digest: Digest,
    pub(super) op: pb::Op,
    pub(super) encoded: Vec<u8>,
}

impl Definition {
    /// Decodes and checks a graph. Ops may come in any order; those that the result does not need
    /// are left out, unchecked.
    ///
    /// # Errors
    /// [`GraphError`] when bytes, digests, inputs or ops are not sound, and when a vertex asks for
    /// a capability that there is not.
    pub fn from_pb(definition: &pb::Definition) -> Result<Self, GraphError> {
        let Some((tail, ops)) = definition.def.split_last() else {
            return Ok(Self::empty());
        };
        if ops.len() > MAX_OPS {
            return Err(GraphError::TooLarge { limit: MAX_OPS });
        }
        let tail = decode(tail, ops.len())?;
        let result = result_of(&tail.op, ops.len())?;
        let ops = ops.iter().enumerate();
        let ops = ops.map(|(position, bytes)| decode(bytes, position));
        let mut ops = ops.collect::<Result<Vec<_>, _>>()?;

        let metadata = |digest: &Digest| {
            let metadata = definition.metadata.get(digest.as_str());
            let metadata = metadata.cloned().unwrap_or_default();
            caps::check(metadata.caps.keys())
                .map_err(|problem| GraphError::invalid(digest, problem))?;
            Ok::<_, GraphError>(metadata)
        };
        let mut builder = GraphBuilder::default();
        for position in needed(&ops, &result) {
            let Decoded {
                digest,
                op,
                encoded,
            } = &mut ops[position];
            let metadata = metadata(digest)?;
            let decoded = Decoded {
                digest: digest.clone(),
                op: std::mem::take(op),
                encoded: std::mem::take(encoded),
            };
            builder.add_decoded(decoded, metadata, position)?;
        }
        builder.graph.tail_caps = metadata(&tail.digest)?.caps;
        if let Some(source) = &definition.source {
            add_sources(&mut builder, source)?;
        }
        builder.finish(result)
    }

    /// Encodes the graph. The last op names the result.
    pub fn to_pb(&self) -> pb::Definition {
        let mut definition = pb::Definition::default();
        let Some(result) = &self.result else {
            return definition;
        };
        for vertex in &self.vertices {
            definition.def.push(vertex.encoded.clone());
            definition
                .metadata
                .insert(vertex.digest.to_string(), vertex.metadata.clone());
        }
        let tail = tail_op(result).encode_to_vec();
        let metadata = pb::OpMetadata {
            caps: self.tail_caps.clone(),
            ..pb::OpMetadata::default()
        };
        definition
            .metadata
            .insert(Digest::sha256(&tail).to_string(), metadata);
        definition.def.push(tail);
        definition.source = Some(self.source_to_pb());
        definition
    }

    fn source_to_pb(&self) -> pb::Source {
        let infos = self.sources.iter().map(|file| pb::SourceInfo {
            filename: file.filename.clone(),
            data: file.data.clone(),
            definition: None,
            language: file.language.clone(),
        });
        let position = |line: u32| {
            Some(pb::Position {
                line: line as i32,
                character: 0,
            })
        };
        let location = |(index, ranges): &(usize, Vec<SourceRange>)| pb::Location {
            source_index: *index as i32,
            ranges: ranges
                .iter()
                .map(|range| pb::Range {
                    start: position(range.start),
                    end: position(range.end),
                })
                .collect(),
        };
        let locations = self.vertices.iter().map(|vertex| {
            let locations = self
                .locations(&vertex.digest)
                .iter()
                .map(location)
                .collect();
            (vertex.digest.to_string(), pb::Locations { locations })
        });
        pb::Source {
            locations: locations.collect(),
            infos: infos.collect(),
        }
    }
}

fn decode(bytes: &[u8], position: usize) -> Result<Decoded, GraphError> {
    let op = pb::Op::decode(bytes).map_err(|source| GraphError::Decode { position, source })?;
    Ok(Decoded {
        digest: Digest::sha256(bytes),
        op,
        encoded: bytes.to_vec(),
    })
}

/// Returns what the last op of a definition names.
fn result_of(tail: &pb::Op, position: usize) -> Result<Edge, GraphError> {
    let ([input], None) = (&tail.inputs[..], &tail.op) else {
        return Err(GraphError::NoResult);
    };
    let vertex = input.digest.parse();
    let vertex = vertex.map_err(|source| GraphError::Digest { position, source })?;
    let index = usize::try_from(input.index).map_err(|_| GraphError::NoResult)?;
    Ok(Edge { vertex, index })
}

/// Returns the places of the ops that `result` needs, each after its inputs; where they are in
/// such an order, they keep it. What is missing is left out.
fn needed(ops: &[Decoded], result: &Edge) -> Vec<usize> {
    let positions = ops.iter().enumerate();
    let positions: HashMap<&str, usize> = positions
        .map(|(position, decoded)| (decoded.digest.as_str(), position))
        .collect();
    let mut walk = Walk {
        ops,
        positions,
        seen: vec![false; ops.len()],
        order: Vec::new(),
    };
    let Some(&last) = walk.positions.get(result.vertex.as_str()) else {
        return Vec::new();
    };
    walk.from(last);
    let mut wanted = std::mem::take(&mut walk.order);
    wanted.sort_unstable();
    walk.seen.fill(false);
    for position in wanted {
        walk.from(position);
    }
    walk.order
}

/// A walk from ops to their inputs.
struct Walk<'a> {
    ops: &'a [Decoded],
    positions: HashMap<&'a str, usize>,
    seen: Vec<bool>,
    /// The ops whose inputs have all been seen.
    order: Vec<usize>,
}

impl Walk<'_> {
    fn from(&mut self, start: usize) {
        let mut pending = Vec::new();
        self.enter(start, &mut pending);
        while let Some((position, input)) = pending.pop() {
            match self.ops[position].op.inputs.get(input) {
                None => self.order.push(position),
                Some(input_op) => {
                    pending.push((position, input + 1));
                    if let Some(&below) = self.positions.get(input_op.digest.as_str()) {
                        self.enter(below, &mut pending);
                    }
                }
            }
        }
    }

    fn enter(&mut self, position: usize, pending: &mut Vec<(usize, usize)>) {
        if !std::mem::replace(&mut self.seen[position], true) {
            pending.push((position, 0));
        }
    }
}

fn add_sources(builder: &mut GraphBuilder, source: &pb::Source) -> Result<(), GraphError> {
    for info in &source.infos {
        builder.add_source(SourceFile {
            filename: info.filename.clone(),
            data: info.data.clone(),
            language: info.language.clone(),
        });
    }
    for (text, locations) in &source.locations {
        let digest: Digest = text.parse().map_err(|source| GraphError::Digest {
            position: 0,
            source,
        })?;
        let line = |position: &Option<pb::Position>| {
            position.as_ref().map_or(0, |at| at.line.max(0) as u32)
        };
        let range = |range: &pb::Range| SourceRange {
            start: line(&range.start),
            end: line(&range.end),
        };
        let known = locations.locations.iter().filter_map(|location| {
            let index = usize::try_from(location.source_index).ok()?;
            Some((index, location.ranges.iter().map(range).collect()))
        });
        let known: Vec<_> = known.collect();
        if !known.is_empty() {
            builder.graph.locations.insert(digest, known);
        }
    }
    Ok(())
}

fn tail_op(result: &Edge) -> pb::Op {
    let input = pb::Input {
        digest: result.vertex.to_string(),
        index: result.index as i64,
    };
    pb::Op {
        inputs: vec![input],
        ..pb::Op::default()
    }
}

/// Encodes an op as BuildKit does, to the byte: what the op is comes last, whatever its number.
pub(super) fn encode(op: &pb::Op) -> Vec<u8> {
    let head = pb::Op {
        inputs: op.inputs.clone(),
        op: None,
        platform: op.platform.clone(),
        constraints: op.constraints.clone(),
    };
    let mut bytes = head.encode_to_vec();
    if let Some(body) = &op.op {
        body.encode(&mut bytes);
    }
    bytes
}
