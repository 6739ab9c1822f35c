//! The LLB build graph: the wire types, a checked in-memory graph, and what each op feeds into
//! cache keys. This crate does no I/O.
//!
//! - [`pb`] holds the wire types, compiled from `proto/ops.proto`.
//! - [`Definition`] is a decoded and validated graph; [`GraphBuilder`] makes one.
//! - [`cache_map`] gives the digests that identify an op in cache keys, equal to BuildKit's.
//! - [`dump`] shows definitions to people; [`caps`] has the names that definitions ask for.
//! - [`policy`] has rules for what may be fetched.
//! - [`image`], [`blob`] and [`http`] read what sources say; [`git`] has the forms in which repositories are named, and what LLB says of them.
//!
//! ```
//! use larder_llb::{Definition, Edge, GraphBuilder, VertexMetadata, pb};
//!
//! let source = pb::SourceOp {
//!     identifier: "docker-image://docker.io/library/busybox:latest".into(),
//!     ..pb::SourceOp::default()
//! };
//! let op = pb::Op {
//!     op: Some(pb::op::Op::Source(source)),
//!     ..pb::Op::default()
//! };
//! let mut graph = GraphBuilder::new();
//! let vertex = graph.add(op, &[], VertexMetadata::default(), None)?;
//! let definition = graph.finish(Edge { vertex, index: 0 })?;
//! assert_eq!(Definition::from_pb(&definition.to_pb())?, definition);
//! # Ok::<(), larder_llb::GraphError>(())
//! ```
//!
//! **Limitations**: a definition has at most 100,000 ops. In an exec op, outputs are numbered in the order
//! of the mounts, and there is one root filesystem; BuildKit takes others, and makes something else
//! of them than they say.

pub mod blob;
pub mod cache_map;
pub mod caps;
pub mod dump;
pub mod git;
mod graph;
pub mod http;
pub mod image;
mod json;
pub mod policy;

pub use graph::{
    Definition, Edge, GraphBuilder, GraphError, Problem, Rewritten, SourceFile, SourceRange,
    Vertex, VertexMetadata, output_mounts,
};
pub use prost::{DecodeError, Message};

/// The LLB wire types. Names and numbers are BuildKit's.
#[expect(
    missing_docs,
    reason = "generated; the fields are those of proto/ops.proto"
)]
#[expect(clippy::all, clippy::pedantic, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}
