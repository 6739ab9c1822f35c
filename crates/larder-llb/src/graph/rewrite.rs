//! Graphs with other sources.

use std::collections::BTreeMap;

use larder_oci::Digest;

use super::builder::GraphBuilder;
use super::codec::{Decoded, encode};
use super::{Definition, Edge, GraphError, Vertex};
use crate::pb;

/// A graph that was made of another.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewritten {
    /// The graph.
    pub definition: Definition,
    /// The new digests of vertices that have one, by the old ones.
    pub renamed: BTreeMap<Digest, Digest>,
}

impl Definition {
    /// Returns the graph with what `change` makes of its sources; what it returns says whether that is
    /// something else. Vertices that read them get new digests, too, and keep what is known of
    /// them beside their ops. `None` if nothing changes.
    ///
    /// # Errors
    /// Those of `change`, and [`GraphError`] for a source that can't be.
    pub fn with_sources<E: From<GraphError>>(
        &self,
        mut change: impl FnMut(&Vertex, &mut pb::SourceOp) -> Result<bool, E>,
    ) -> Result<Option<Rewritten>, E> {
        let mut changed = BTreeMap::new();
        for vertex in &self.vertices {
            let Some(pb::op::Op::Source(source)) = &vertex.op.op else {
                continue;
            };
            let mut source = source.clone();
            if change(vertex, &mut source)? {
                changed.insert(&vertex.digest, source);
            }
        }
        let Some(result) = &self.result else {
            return Ok(None);
        };
        if changed.is_empty() {
            return Ok(None);
        }
        let mut builder = GraphBuilder::new();
        builder.graph.sources.clone_from(&self.sources);
        builder.graph.tail_caps.clone_from(&self.tail_caps);
        let mut renamed = BTreeMap::new();
        for (position, vertex) in self.vertices.iter().enumerate() {
            let source = changed.remove(&vertex.digest);
            let rewritten = rewrite(vertex, source, &renamed);
            let digest = rewritten.digest.clone();
            let metadata = vertex.metadata.clone();
            builder.add_decoded(rewritten, metadata, position)?;
            if let Some(locations) = self.locations.get(&vertex.digest) {
                let known = builder.graph.locations.entry(digest.clone()).or_default();
                known.extend(locations.iter().cloned());
            }
            if digest != vertex.digest {
                renamed.insert(vertex.digest.clone(), digest);
            }
        }
        let vertex = renamed.get(&result.vertex).unwrap_or(&result.vertex);
        let definition = builder.finish(Edge {
            vertex: vertex.clone(),
            index: result.index,
        })?;
        Ok(Some(Rewritten {
            definition,
            renamed,
        }))
    }
}

/// Returns the op of a vertex with another source, or other digests of inputs; as it was encoded if
/// neither is so.
fn rewrite(
    vertex: &Vertex,
    source: Option<pb::SourceOp>,
    renamed: &BTreeMap<Digest, Digest>,
) -> Decoded {
    let reads_renamed = |edge: &Edge| renamed.contains_key(&edge.vertex);
    let mut op = vertex.op.clone();
    if source.is_none() && !vertex.inputs.iter().any(reads_renamed) {
        return Decoded {
            digest: vertex.digest.clone(),
            op,
            encoded: vertex.encoded.clone(),
        };
    }
    if let Some(source) = source {
        op.op = Some(pb::op::Op::Source(source));
    }
    for (input, edge) in op.inputs.iter_mut().zip(&vertex.inputs) {
        if let Some(digest) = renamed.get(&edge.vertex) {
            input.digest = digest.to_string();
        }
    }
    let encoded = encode(&op);
    Decoded {
        digest: Digest::sha256(&encoded),
        op,
        encoded,
    }
}
