use std::collections::BTreeMap;

use larder_oci::{Digest, DigestError};
use prost::Message;

use crate::pb;

/// One output of a vertex: the unit that is solved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The vertex.
    pub vertex: Digest,
    /// Which of its outputs, from 0.
    pub index: usize,
}

/// An op with its inputs, named by the digest of its encoding.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// The digest of the op's encoding.
    pub digest: Digest,
    /// The op. Its `inputs` equal the decoded ones below.
    pub op: pb::Op,
    /// The edges it reads, in the op's order.
    pub inputs: Vec<Edge>,
    /// What does not enter the digest.
    pub metadata: VertexMetadata,
}

/// What is known of a vertex beside its op; none of it enters a digest or a key.
pub type VertexMetadata = pb::OpMetadata;

impl Vertex {
    /// Returns the name shown in progress: the custom name, else one made of the op.
    pub fn name(&self) -> String {
        if let Some(name) = self.metadata.description.get("llb.customname") {
            return name.clone();
        }
        match &self.op.op {
            Some(pb::op::Op::Source(source)) => source.identifier.clone(),
            Some(pb::op::Op::Exec(exec)) => exec
                .meta
                .as_ref()
                .map(|meta| meta.args.join(" "))
                .unwrap_or_default(),
            Some(pb::op::Op::File(file)) => {
                let names: Vec<_> = file.actions.iter().map(action_name).collect();
                names.join(", ")
            }
            Some(pb::op::Op::Merge(_)) => "merge".to_owned(),
            Some(pb::op::Op::Diff(_)) => "diff".to_owned(),
            Some(pb::op::Op::Build(_)) => "build".to_owned(),
            Some(pb::op::Op::Passthrough(_)) | None => "unknown".to_owned(),
        }
    }

    /// Returns whether the step must run even if a record of it exists.
    pub fn ignores_cache(&self) -> bool {
        self.metadata.ignore_cache
    }
}

fn action_name(action: &pb::FileAction) -> String {
    use pb::file_action::Action;
    match &action.action {
        Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Action::Mkfile(mkfile)) => format!("mkfile {}", mkfile.path),
        Some(Action::Mkdir(mkdir)) => format!("mkdir {}", mkdir.path),
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(symlink)) => {
            format!("symlink {} -> {}", symlink.newpath, symlink.oldpath)
        }
        None => "unknown".to_owned(),
    }
}

/// Lines of a source file, 1-based, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRange {
    /// The first line.
    pub start: u32,
    /// The last line.
    pub end: u32,
}

/// A text that vertices were made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, as messages show it.
    pub filename: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// `Dockerfile`, …
    pub language: String,
}

/// A decoded and validated graph. Vertices are in topological order: inputs come first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    vertices: Vec<Vertex>,
    positions: BTreeMap<Digest, usize>,
    result: Option<Edge>,
    sources: Vec<SourceFile>,
    locations: BTreeMap<Digest, Vec<(usize, Vec<SourceRange>)>>,
    tail_caps: BTreeMap<String, bool>,
}

/// A definition that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Bytes that are no LLB op.
    #[error("cannot decode LLB op {position}")]
    Decode {
        /// The op's place in the definition, from 0.
        position: usize,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// A digest that is none.
    #[error("cannot decode LLB op {position}")]
    Digest {
        /// The op's place in the definition, from 0.
        position: usize,
        /// What is wrong with it.
        source: DigestError,
    },
    /// An input that the definition lacks, or that comes after its user.
    #[error("LLB vertex `{vertex}` reads `{input}`, which is not defined before it")]
    MissingInput {
        /// The reader.
        vertex: Digest,
        /// What it reads.
        input: Digest,
    },
    /// An index that is out of bounds.
    #[error("LLB vertex `{vertex}` has an index out of bounds: {what}")]
    Index {
        /// The vertex.
        vertex: Digest,
        /// Which index.
        what: &'static str,
    },
}

impl Definition {
    /// Returns the graph with no vertex: an empty file tree (`FROM scratch` alone).
    pub fn empty() -> Self {
        Self::default()
    }

    /// Returns the vertices, inputs before their users.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// Returns a vertex by digest.
    pub fn get(&self, digest: &Digest) -> Option<&Vertex> {
        self.positions
            .get(digest)
            .map(|&position| &self.vertices[position])
    }

    /// Returns the edge that is the result; `None` for the empty graph.
    pub fn result(&self) -> Option<&Edge> {
        self.result.as_ref()
    }

    /// Returns the texts that vertices were made from.
    pub fn sources(&self) -> &[SourceFile] {
        &self.sources
    }

    /// Returns where a vertex stands: indexes into [`Definition::sources`], with the lines.
    pub fn locations(&self, digest: &Digest) -> &[(usize, Vec<SourceRange>)] {
        self.locations.get(digest).map_or(&[], Vec::as_slice)
    }

    /// Encodes the graph. The last op names the result.
    pub fn to_pb(&self) -> pb::Definition {
        let mut definition = pb::Definition::default();
        let Some(result) = &self.result else {
            return definition;
        };
        for vertex in &self.vertices {
            definition.def.push(encode(&vertex.op));
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

    /// Decodes and checks a graph.
    ///
    /// # Errors
    /// [`GraphError`] when bytes, digests, inputs or indexes are not sound.
    pub fn from_pb(definition: &pb::Definition) -> Result<Self, GraphError> {
        let mut builder = GraphBuilder::default();
        let mut result = None;
        for (position, bytes) in definition.def.iter().enumerate() {
            let op = pb::Op::decode(&bytes[..])
                .map_err(|source| GraphError::Decode { position, source })?;
            let digest = Digest::sha256(bytes);
            let metadata = definition
                .metadata
                .get(digest.as_str())
                .cloned()
                .unwrap_or_default();
            if op.op.is_none() && position + 1 == definition.def.len() {
                builder.graph.tail_caps = metadata.caps;
                let input = op.inputs.first().ok_or(GraphError::Index {
                    vertex: digest,
                    what: "no result",
                })?;
                let vertex = input
                    .digest
                    .parse()
                    .map_err(|source| GraphError::Digest { position, source })?;
                result = Some(Edge {
                    vertex,
                    index: input.index as usize,
                });
                break;
            }
            builder.add_encoded(digest, op, metadata, position)?;
        }
        if let Some(source) = &definition.source {
            builder.add_sources(source)?;
        }
        match result {
            Some(result) => builder.finish(result),
            None => Ok(builder.graph),
        }
    }
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

/// Makes a [`Definition`], vertex by vertex, inputs first. Equal ops become one vertex.
#[derive(Debug, Clone, Default)]
pub struct GraphBuilder {
    graph: Definition,
}

impl GraphBuilder {
    /// Starts an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text that vertices are made from; returns its index.
    pub fn add_source(&mut self, file: SourceFile) -> usize {
        self.graph.sources.push(file);
        self.graph.sources.len() - 1
    }

    /// Adds a vertex and returns its digest. `op.inputs` is set from `inputs`. If the same op was
    /// added before, what `metadata` says replaces what was said before, `ignore_cache` holds if
    /// either asks for it, and the location is added.
    ///
    /// # Errors
    /// [`GraphError`] when an input is unknown or an index out of bounds.
    pub fn add(
        &mut self,
        mut op: pb::Op,
        inputs: &[Edge],
        metadata: VertexMetadata,
        location: Option<(usize, Vec<SourceRange>)>,
    ) -> Result<Digest, GraphError> {
        op.inputs = inputs
            .iter()
            .map(|edge| pb::Input {
                digest: edge.vertex.to_string(),
                index: edge.index as i64,
            })
            .collect();
        let digest = Digest::sha256(encode(&op));
        self.add_encoded(digest.clone(), op, metadata, self.graph.vertices.len())?;
        if let Some(location) = location {
            let known = self.graph.locations.entry(digest.clone()).or_default();
            if !known.contains(&location) {
                known.push(location);
            }
        }
        Ok(digest)
    }

    /// Adds all of another graph: its vertices, with what is known of them, and the texts that
    /// they were made from.
    pub fn add_definition(&mut self, definition: &Definition) {
        let first_source = self.graph.sources.len();
        self.graph
            .sources
            .extend(definition.sources.iter().cloned());
        for vertex in &definition.vertices {
            let digest = &vertex.digest;
            if let Some(&known) = self.graph.positions.get(digest) {
                merge_metadata(
                    &mut self.graph.vertices[known].metadata,
                    vertex.metadata.clone(),
                );
            } else {
                let position = self.graph.vertices.len();
                self.graph.positions.insert(digest.clone(), position);
                self.graph.vertices.push(vertex.clone());
            }
            let locations = definition.locations(digest);
            if !locations.is_empty() {
                let moved = |(index, ranges): &(usize, Vec<SourceRange>)| {
                    (first_source + index, ranges.clone())
                };
                let known = self.graph.locations.entry(digest.clone()).or_default();
                known.extend(locations.iter().map(moved));
            }
        }
    }

    fn add_encoded(
        &mut self,
        digest: Digest,
        op: pb::Op,
        metadata: VertexMetadata,
        position: usize,
    ) -> Result<(), GraphError> {
        if let Some(&known) = self.graph.positions.get(&digest) {
            merge_metadata(&mut self.graph.vertices[known].metadata, metadata);
            return Ok(());
        }
        let mut inputs = Vec::with_capacity(op.inputs.len());
        for input in &op.inputs {
            let vertex: Digest = input
                .digest
                .parse()
                .map_err(|source| GraphError::Digest { position, source })?;
            if !self.graph.positions.contains_key(&vertex) {
                return Err(GraphError::MissingInput {
                    vertex: digest,
                    input: vertex,
                });
            }
            let index = usize::try_from(input.index).map_err(|_| GraphError::Index {
                vertex: digest.clone(),
                what: "input",
            })?;
            inputs.push(Edge { vertex, index });
        }
        check_indexes(&digest, &op)?;
        self.graph
            .positions
            .insert(digest.clone(), self.graph.vertices.len());
        self.graph.vertices.push(Vertex {
            digest,
            op,
            inputs,
            metadata,
        });
        Ok(())
    }

    fn add_sources(&mut self, source: &pb::Source) -> Result<(), GraphError> {
        for info in &source.infos {
            self.add_source(SourceFile {
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
                self.graph.locations.insert(digest, known);
            }
        }
        Ok(())
    }

    /// Sets the capabilities that the final, result-naming op asks for.
    pub fn set_tail_caps(&mut self, caps: &[&str]) {
        self.graph.tail_caps = caps.iter().map(|&cap| (cap.to_owned(), true)).collect();
    }

    /// Ends the graph at `result`, dropping the vertices that it does not need.
    ///
    /// # Errors
    /// [`GraphError::MissingInput`] when `result` names no vertex.
    pub fn finish(self, result: Edge) -> Result<Definition, GraphError> {
        let mut graph = self.graph;
        let Some(&last) = graph.positions.get(&result.vertex) else {
            return Err(GraphError::MissingInput {
                vertex: result.vertex.clone(),
                input: result.vertex,
            });
        };
        let mut needed = vec![false; graph.vertices.len()];
        needed[last] = true;
        for position in (0..graph.vertices.len())
            .rev()
            .filter(|&position| position <= last)
        {
            if needed[position] {
                for input in &graph.vertices[position].inputs {
                    needed[graph.positions[&input.vertex]] = true;
                }
            }
        }
        let mut keep = needed.into_iter();
        graph.vertices.retain(|_| keep.next().unwrap_or(false));
        graph.positions = graph
            .vertices
            .iter()
            .enumerate()
            .map(|(position, vertex)| (vertex.digest.clone(), position))
            .collect();
        let positions = &graph.positions;
        graph
            .locations
            .retain(|digest, _| positions.contains_key(digest));
        graph.result = Some(result);
        Ok(graph)
    }
}

/// Encodes an op as BuildKit does, to the byte: what the op is comes last, whatever its number.
fn encode(op: &pb::Op) -> Vec<u8> {
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

/// Merges as BuildKit's clients do when they meet an op twice: what is said later wins.
fn merge_metadata(known: &mut VertexMetadata, later: VertexMetadata) {
    known.ignore_cache |= later.ignore_cache;
    known.description.extend(later.description);
    known.caps.extend(later.caps);
    known.export_cache = later.export_cache.or(known.export_cache.take());
    known.progress_group = later.progress_group.or(known.progress_group.take());
    known.linux_resources = later.linux_resources.or(known.linux_resources.take());
}

/// Checks every index of an op against what it points into, so that nothing below has to.
fn check_indexes(vertex: &Digest, op: &pb::Op) -> Result<(), GraphError> {
    let fail = |what| GraphError::Index {
        vertex: vertex.clone(),
        what,
    };
    let count = op.inputs.len() as i64;
    let within = |index: i64| (-1..count).contains(&index);
    match &op.op {
        Some(pb::op::Op::Exec(exec)) => {
            if !exec.mounts.iter().all(|mount| within(mount.input)) {
                return Err(fail("mount input"));
            }
        }
        Some(pb::op::Op::File(file)) => {
            for (done, action) in (0i64..).zip(&file.actions) {
                let known = |index: i64| (-1..count + done).contains(&index);
                if !known(action.input) || !known(action.secondary_input) {
                    return Err(fail("file action input"));
                }
            }
        }
        Some(pb::op::Op::Merge(merge)) => {
            if !merge
                .inputs
                .iter()
                .all(|input| (0..count).contains(&input.input))
            {
                return Err(fail("merge input"));
            }
        }
        Some(pb::op::Op::Diff(diff)) => {
            let lower = diff.lower.as_ref().map_or(-1, |lower| lower.input);
            let upper = diff.upper.as_ref().map_or(-1, |upper| upper.input);
            if !within(lower) || !within(upper) {
                return Err(fail("diff input"));
            }
        }
        Some(pb::op::Op::Source(_) | pb::op::Op::Build(_) | pb::op::Op::Passthrough(_)) | None => {}
    }
    Ok(())
}
