//! Attestations: what is said about a result, in the forms of in-toto and BuildKit.
//!
//! A provenance says how a result was made. Nothing in it depends on when or how often that was
//! asked for: the times are those of the result's own layers, and the invocation's id is made from
//! all the rest. So an image keeps its digest as long as nothing about it changes, also on another
//! machine that has its layers from a cache.

mod manifest;
pub(crate) mod material;
mod plan;
mod provenance;
pub(crate) mod sbom;
mod statement;
mod steps;

pub(crate) use manifest::{Form, write_manifest};
pub(crate) use material::{Material, Pin, purl};
pub(crate) use plan::Plan;
pub(crate) use provenance::{Facts, RequestFacts, predicate, without_details};
pub(crate) use sbom::Scan;
pub(crate) use statement::{Attestation, Subject};
