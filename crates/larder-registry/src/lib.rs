//! Distribution client: finds images in registries and fetches their manifests and blobs.
//!
//! [`Client`] speaks the distribution specification's HTTP interface. Which mirrors, certificates
//! and schemes a registry takes, [`RegistryConfig`] says, with the keys of buildkitd.toml; who the
//! user is, a [`CredentialSource`] says, such as [`DockerConfig`], which reads what `docker login`
//! wrote.
//!
//! All that comes from a registry is checked: manifests and blobs against their digest and size,
//! answers against limits. What breaks off is resumed where it broke off. Secrets are [`Secret`]s,
//! which no log shows, and go to no other host than the one they are for.
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
//! **Limitations**: it pulls and does not push. Of the digest algorithms it checks `sha256`, and
//! refuses others. A [`BlobSink`] is written to from the runtime's thread, so it should not block
//! for long.

mod auth;
mod blob;
mod challenge;
mod client;
mod config;
mod credentials;
mod endpoint;
mod error;
mod observer;
mod secret;
mod tls;
mod transport;

pub use blob::{BlobSink, Partial};
pub use client::{Client, Manifest, Resolved};
pub use config::{Config, KeyPair, RegistryConfig, RetryPolicy};
pub use credentials::{Anonymous, CredentialSource, Credentials, CredentialsFuture, DockerConfig};
pub use error::{Error, ErrorKind};
pub use observer::Observer;
pub use secret::Secret;
