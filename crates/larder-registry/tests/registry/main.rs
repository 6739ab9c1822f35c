//! The client against Debian's registry, behind a server of ours that breaks things, and against
//! hand-made registries.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod auth;
mod faults;
mod parts;
mod pull;
mod push;
mod tls;
mod web;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use larder_oci::{Descriptor, Digest, ImageRef};
use larder_registry::{Client, Config, Error, Observer, Partial, RegistryConfig, RetryPolicy};
use larder_testkit::{Base, OciArchive, Registry};

/// Debian's registry with busybox in it, as `library/busybox:latest`.
struct Fixture {
    registry: Registry,
    manifest: Descriptor,
    archive: OciArchive,
}

impl Fixture {
    fn start() -> anyhow::Result<Self> {
        let path = Base::Busybox.archive()?;
        let registry = Registry::start()?;
        let manifest = registry.push_archive(&path, "library/busybox", "latest")?;
        Ok(Self {
            registry,
            manifest,
            archive: OciArchive::open(&path)?,
        })
    }

    /// Returns the fixture that all tests share, or why there is none.
    fn shared() -> Result<&'static Self, String> {
        static SHARED: OnceLock<Result<Fixture, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn layer(&self) -> Descriptor {
        self.archive.manifest().unwrap().layers.remove(0)
    }

    fn layer_bytes(&self) -> &[u8] {
        self.archive.blob(&self.layer().digest).unwrap()
    }
}

/// Binds the shared fixture, or ends the test as skipped.
macro_rules! fixture {
    () => {
        match $crate::Fixture::shared() {
            Ok(fixture) => fixture,
            Err(error) => larder_testkit::skip!("no registry: {error}"),
        }
    };
}
use fixture;

/// Returns a configuration under which `host` speaks http and retries cost no time.
fn config(host: &str) -> Config {
    let section = RegistryConfig {
        http: Some(true),
        ..RegistryConfig::default()
    };
    Config {
        registries: [(host.to_owned(), section)].into(),
        retry: RetryPolicy {
            first_delay: Duration::from_millis(1),
            ..RetryPolicy::default()
        },
        ..Config::default()
    }
}

fn client(host: &str) -> Client {
    Client::new(config(host))
}

fn image(host: &str, name: &str) -> ImageRef {
    format!("{host}/{name}").parse().unwrap()
}

fn busybox(host: &str) -> ImageRef {
    image(host, "library/busybox:latest")
}

async fn fetch(client: &Client, host: &str, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    client
        .fetch_blob(&busybox(host), blob, Partial::default(), &mut bytes)
        .await?;
    Ok(bytes)
}

/// Keeps what it hears.
#[derive(Default)]
struct Recorder {
    received: Mutex<Vec<u64>>,
    retries: Mutex<Vec<String>>,
    tokens: Mutex<Vec<String>>,
}

impl Observer for Recorder {
    fn token_requested(&self, host: &str, scope: &str) {
        self.tokens
            .lock()
            .unwrap()
            .push(format!("{scope} for {host}"));
    }

    fn received(&self, _blob: &Descriptor, current_bytes: u64) {
        self.received.lock().unwrap().push(current_bytes);
    }

    fn retrying(&self, _host: &str, error: &Error, _delay: Duration) {
        self.retries.lock().unwrap().push(error.to_string());
    }
}

/// Returns a client that tells a recorder.
fn recorded(host: &str) -> (Client, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let config = Config {
        observer: recorder.clone(),
        ..config(host)
    };
    (Client::new(config), recorder)
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::sha256(bytes)
}
