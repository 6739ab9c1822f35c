//! Making a graph, vertex by vertex.

use larder_oci::Digest;

use super::codec::{Decoded, encode};
use super::{Definition, Edge, GraphError, SourceFile, SourceRange, Vertex, VertexMetadata};
use super::{name, validate};
use crate::pb;

/// Makes a [`Definition`], vertex by vertex, inputs first. Equal ops become one vertex.
#[derive(Debug, Clone, Default)]
pub struct GraphBuilder {
    pub(super) graph: Definition,
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
        let encoded = encode(&op);
        let digest = Digest::sha256(&encoded);
        let decoded = Decoded {
            digest: digest.clone(),
            op,
            encoded,
        };
        self.add_decoded(decoded, metadata, self.graph.vertices.len())?;
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

    /// Adds a decoded op. `position` is its place in what was decoded, for messages.
    pub(super) fn add_decoded(
        &mut self,
        decoded: Decoded,
        metadata: VertexMetadata,
        position: usize,
    ) -> Result<(), GraphError> {
        let Decoded {
            digest,
            op,
            encoded,
        } = decoded;
        if let Some(&known) = self.graph.positions.get(&digest) {
            merge_metadata(&mut self.graph.vertices[known].metadata, metadata);
            return Ok(());
        }
        let mut inputs = Vec::with_capacity(op.inputs.len());
        for input in &op.inputs {
            let read: Digest = input
                .digest
                .parse()
                .map_err(|source| GraphError::Digest { position, source })?;
            let Some(vertex) = self.graph.get(&read) else {
                return Err(GraphError::MissingInput {
                    vertex: digest,
                    input: read,
                });
            };
            let index = validate::output(vertex, input.index)
                .map_err(|problem| GraphError::invalid(&digest, problem))?;
            inputs.push(Edge {
                vertex: read,
                index,
            });
        }
        validate::op(&op).map_err(|problem| GraphError::invalid(&digest, problem))?;
        let names = inputs.iter().map(|edge| self.graph.get(&edge.vertex));
        let names = names.flatten().map(Vertex::name).collect::<Vec<_>>();
        let name = name::of(&op, &names);
        self.graph
            .positions
            .insert(digest.clone(), self.graph.vertices.len());
        self.graph.vertices.push(Vertex {
            digest,
            op,
            inputs,
            metadata,
            name,
            encoded,
        });
        Ok(())
    }

    /// Sets the capabilities that the final, result-naming op asks for.
    pub fn set_tail_caps(&mut self, caps: &[&str]) {
        self.graph.tail_caps = caps.iter().map(|&cap| (cap.to_owned(), true)).collect();
    }

    /// Ends the graph at `result`, dropping the vertices that it does not need.
    ///
    /// # Errors
    /// [`GraphError`] when `result` names no vertex, or an output that the vertex has not.
    pub fn finish(self, result: Edge) -> Result<Definition, GraphError> {
        let mut graph = self.graph;
        let Some(&last) = graph.positions.get(&result.vertex) else {
            return Err(GraphError::MissingResult(result.vertex));
        };
        validate::output(&graph.vertices[last], result.index as i64)
            .map_err(|problem| GraphError::invalid(&result.vertex, problem))?;
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

/// Merges as BuildKit's clients do when they meet an op twice: what is said later wins.
fn merge_metadata(known: &mut VertexMetadata, later: VertexMetadata) {
    known.ignore_cache |= later.ignore_cache;
    known.description.extend(later.description);
    known.caps.extend(later.caps);
    known.export_cache = later.export_cache.or(known.export_cache.take());
    known.progress_group = later.progress_group.or(known.progress_group.take());
    known.linux_resources = later.linux_resources.or(known.linux_resources.take());
}
