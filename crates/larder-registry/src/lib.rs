//! Distribution client: finds images in registries, fetches and pushes their manifests and blobs.
//!
//! [`Client`] speaks the distribution specification's HTTP interface. Which mirrors, certificates
//! and schemes a registry takes, [`RegistryConfig`] says, with the keys of buildkitd.toml; who the
//! user is, a [`CredentialSource`] says, such as [`DockerConfig`], which reads what `docker login`
//! wrote, and writes the same.
//!
//! All that comes from a registry is checked: manifests and blobs against their digest and size,
//! answers against limits. What breaks off is resumed where it broke off, both ways. Secrets are
//! [`Secret`]s, which no log shows, and go to no other host than the one they are for.
//!
//! [`Client::push_blob`] sends nothing that the registry has, or can take from another of its
//! repositories; [`Client::push_manifest`] comes last. Pushes go to the registry, never to a mirror.
//!
//! [`WebClient`] fetches other files from web servers, by the same rules: they are taken up where they
//! broke off, not fetched while they are unchanged, and their secrets stay with their server.
//!
//! This crate returns futures and spawns nothing: the caller brings the tokio runtime, decides what
//! runs at once, and stores what arrives. It knows neither the store nor the progress display; an
//! [`Observer`] hears what happens.
//!
//! ```no_run
//! # async fn example() -> Result<(), larder_registry::Error> {
//! use larder_registry::{Client, Config, Partial};
//!
//! let client = Client::new(Config::default());
//! let image_ref = "busybox".parse().unwrap();
//! let resolved = client.resolve(&image_ref).await?;
//! let manifest = client.fetch_manifest(&image_ref, &resolved.descriptor.digest).await?;
//! let image: larder_oci::ImageManifest = serde_json::from_slice(&manifest.bytes).unwrap();
//! let mut config = Vec::new();
//! client.fetch_blob(&image_ref, &image.config, Partial::default(), &mut config).await?;
//! # Ok(())
//! # }
//! ```
//!
//! **Limitations**: of the digest algorithms it checks `sha256`, and refuses others. A [`BlobSink`]
//! is written to and a [`BlobSource`] read from the runtime's threads, so they should not block for
//! long. Where a registry drops a piece of a blob that came in part, as Debian's does, an upload is
//! begun anew. Blobs are neither listed nor deleted.

mod answer;
mod auth;
mod blob;
mod challenge;
mod client;
mod config;
mod credentials;
mod endpoint;
mod error;
mod login;
mod observer;
mod piece;
mod push;
mod request;
mod retry;
mod secret;
mod tls;
mod transport;
mod trust;
mod upload;
mod web;

pub use blob::{BlobSink, Partial};
pub use client::{Client, Manifest, Resolved};
pub use config::{Config, KeyPair, RegistryConfig, RetryPolicy};
pub use credentials::{Anonymous, CredentialSource, Credentials, CredentialsFuture, DockerConfig};
pub use error::{Error, ErrorKind};
pub use login::{KnownLogin, registry_name};
pub use observer::Observer;
pub use piece::BlobSource;
pub use push::{BlobPush, Pushed};
pub use secret::Secret;
pub use web::{Validator, WebAnswer, WebClient, WebFile, WebRequest};
