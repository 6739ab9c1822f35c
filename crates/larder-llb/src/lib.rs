//! The LLB build graph: the wire types, a checked in-memory graph, and what each op feeds into
//! cache keys. This crate does no I/O.
//!
//! - [`pb`] holds the wire types, compiled from `proto/ops.proto`.
//! - [`Definition`] is a decoded and validated graph; [`GraphBuilder`] makes one.
//! - [`cache_map`] gives the digests that identify an op in cache keys, equal to BuildKit's.
//!
//! **Limitations**: nested builds (`BuildOp`) and `PassthroughOp` are decoded, and refused by
//! the engine.

pub mod cache_map;
mod graph;
pub mod http;

pub use graph::{
    Definition, Edge, GraphBuilder, GraphError, SourceFile, SourceRange, Vertex, VertexMetadata,
};

/// The LLB wire types. Names and numbers are BuildKit's.
#[expect(
    missing_docs,
    reason = "generated; the fields are those of proto/ops.proto"
)]
#[expect(clippy::all, clippy::pedantic, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}
