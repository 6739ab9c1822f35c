//! The build graph, decoded and checked.

mod builder;
mod codec;
pub(crate) mod name;
mod rewrite;
pub(crate) mod validate;

use std::collections::{BTreeMap, HashMap};

use larder_oci::{Digest, DigestError};

use crate::pb;
pub use builder::GraphBuilder;
pub use rewrite::Rewritten;
pub use validate::{Problem, output_mounts};

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
    /// A name made of the op.
    name: String,
    /// The op as it was encoded, by whom ever: what the digest is of.
    encoded: Vec<u8>,
}

/// What is known of a vertex beside its op; none of it enters a digest or a key.
pub type VertexMetadata = pb::OpMetadata;

impl Vertex {
    /// Returns the name shown in progress: the custom name, else one made of the op.
    pub fn name(&self) -> String {
        let custom = self.metadata.description.get("llb.customname");
        custom.unwrap_or(&self.name).clone()
    }

    /// Returns whether the step must run even if a record of it exists.
    pub fn ignores_cache(&self) -> bool {
        self.metadata.ignore_cache
    }

    /// Returns whether caches are exported without the step's result. Asking for it has no effect:
    /// the mode of the export decides.
    pub fn withholds_result(&self) -> bool {
        let asked = self.metadata.export_cache.as_ref();
        asked.is_some_and(|export| !export.value)
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
    positions: HashMap<Digest, usize>,
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
    /// More ops than any build has.
    #[error("an LLB definition has more than {limit} ops")]
    TooLarge {
        /// How many there may be.
        limit: usize,
    },
    /// The last op does not name a result, and nothing else.
    #[error("the last op of an LLB definition has to name the result, by one input")]
    NoResult,
    /// The result is no vertex.
    #[error("an LLB definition has no vertex `{0}`, which is to be its result")]
    MissingResult(Digest),
    /// An input that the definition lacks.
    #[error("LLB vertex `{vertex}` reads `{input}`, which is not defined")]
    MissingInput {
        /// The reader.
        vertex: Digest,
        /// What it reads.
        input: Digest,
    },
    /// An op that can't be.
    #[error("invalid LLB vertex `{vertex}`")]
    Invalid {
        /// The vertex.
        vertex: Digest,
        /// What is wrong with it.
        source: Problem,
    },
}

impl GraphError {
    fn invalid(vertex: &Digest, source: Problem) -> Self {
        Self::Invalid {
            vertex: vertex.clone(),
            source,
        }
    }
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

    /// Has all steps run again, whatever records there are; sources are as they are.
    pub fn ignore_cache(&mut self) {
        for vertex in &mut self.vertices {
            let is_source = matches!(vertex.op.op, Some(pb::op::Op::Source(_)));
            vertex.metadata.ignore_cache |= !is_source;
        }
    }

    /// Returns the texts that vertices were made from.
    pub fn sources(&self) -> &[SourceFile] {
        &self.sources
    }

    /// Returns where a vertex stands: indexes into [`Definition::sources`], with the lines.
    pub fn locations(&self, digest: &Digest) -> &[(usize, Vec<SourceRange>)] {
        self.locations.get(digest).map_or(&[], Vec::as_slice)
    }
}
