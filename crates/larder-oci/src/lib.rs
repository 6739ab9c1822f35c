//! Plain data of OCI images: digests, descriptors, manifests, image configs, platforms,
//! references and mounts. This crate does no I/O.
//!
//! The types follow the OCI image and distribution specifications, with the fields that Docker
//! adds to the image config (`Healthcheck`, `Shell`, `OnBuild`, `ArgsEscaped`).
//!
//! ```
//! use larder_oci::{Digest, ImageRef};
//!
//! let image_ref: ImageRef = "python:3.11-slim".parse().unwrap();
//! assert_eq!(image_ref.to_string(), "docker.io/library/python:3.11-slim");
//! assert_eq!(
//!     Digest::sha256(b"").to_string(),
//!     "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
//! );
//! ```
//!
//! **Limitations**: of the digest algorithms only `sha256` is computed; others are carried as text.

mod config;
mod digest;
mod manifest;
mod mount;
mod platform;
mod reference;

pub use config::{
    ContainerConfig, EmptyObject, Healthcheck, HistoryEntry, ImageConfig, RootFs, go_json,
    go_json_pretty,
};
pub use digest::{Digest, DigestError, SavedSha256, Sha256};
pub use manifest::{Descriptor, ImageIndex, ImageManifest, annotation, media_type};
pub use mount::{Layer, Mount, MountKind, OverlayUpper};
pub use platform::{Platform, PlatformError};
pub use reference::{ImageRef, ImageRefError};
