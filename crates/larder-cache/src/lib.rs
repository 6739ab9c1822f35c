//! BuildKit's cache formats: how cache records, and the layers of their results, travel between
//! machines. This crate does no I/O.
//!
//! A cache is a graph of [`Record`]s. [`Imported`] reads it from any form there is: the manifests
//! that a registry or an OCI layout holds ([`Manifest::parse`], [`Imported::parse`]), or an image's
//! config ([`Imported::from_image`]). [`Exported`] writes it: normalized, so that equal caches have
//! equal digests, as a config with a manifest in one of three forms ([`ManifestForm`]), or inline
//! ([`inline::value`]). [`layout`] is about the `index.json` of a cache in a directory, [`format`]
//! is the config as it is written.
//!
//! ```
//! use larder_cache::{Exported, Imported, Link, Manifest, ManifestForm, Record};
//! use larder_oci::Digest;
//!
//! let source = Record::new(Digest::sha256("source"));
//! let step = Record {
//!     inputs: vec![vec![Link { selector: None, record: 0 }]],
//!     ..Record::new(Digest::sha256("step"))
//! };
//! let exported = Exported::new(&[source, step]);
//! let written = exported.manifest(ManifestForm::Image);
//!
//! let Manifest::Cache { layers, .. } = Manifest::parse(&written.bytes)? else {
//!     panic!("a cache was written");
//! };
//! let imported = Imported::parse(exported.config_bytes(), &layers)?;
//! assert_eq!(imported.records.len(), 2);
//! # Ok::<(), larder_cache::Error>(())
//! ```
//!
//! What is read is hostile: every index is checked, loops are refused, and [`limit`] bounds what a
//! cache may hold.
//!
//! **Limitations**: configs that carry descriptors of layers (`annotations`, as the backends `s3`
//! and `gha` write them) are read and not written.

mod build;
mod error;
mod export;
pub mod format;
mod import;
pub mod inline;
pub mod layout;
pub mod limit;
mod manifest;
mod order;
mod record;

pub use error::{Error, ErrorKind, Result};
pub use export::{Exported, WrittenManifest};
pub use import::Imported;
pub use manifest::{Manifest, ManifestForm};
pub use record::{Link, Record, RecordResult, RemoteLayer, annotation};
