use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::{Anonymous, CredentialSource, Observer};

/// Large enough that waiting for the answers in between does not count, and larger than the smallest
/// part that S3 takes, behind registries that hand pieces on to it.
const PIECE_BYTES: u64 = 32 << 20;

/// How a [`Client`](crate::Client) behaves.
#[derive(Clone)]
pub struct Config {
    /// What is special about a registry or a mirror, by its host as written in image references,
    /// with its port if any: `docker.io`, `localhost:5000`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Who the user is.
    pub credentials: Arc<dyn CredentialSource>,
    /// Who hears what happens.
    pub observer: Arc<dyn Observer>,
    /// How the client names itself.
    pub user_agent: String,
    /// How often it tries.
    pub retry: RetryPolicy,
    /// Larger blobs are pushed in pieces of so many bytes: what breaks off is taken up again at the
    /// end of the last piece, even where the registry forgets a piece that came in part.
    pub piece_bytes: u64,
}

/// What is special about a registry: a `[registry."host"]` section, with buildkitd.toml's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegistryConfig {
    /// Hosts that are tried before the registry itself, in this order. A path after the host goes
    /// before the repository: `harbor.example/proxy` serves `library/python` as
    /// `proxy/library/python`.
    pub mirrors: Vec<String>,
    /// Whether the registry speaks plain http.
    pub http: Option<bool>,
    /// Whether its certificate is not checked. Where it does not speak TLS at all, plain http is
    /// used.
    pub insecure: Option<bool>,
    /// PEM files with certificates to trust, besides the system's.
    pub ca: Vec<PathBuf>,
    /// Certificates that the client shows. Only the first is used.
    pub keypair: Vec<KeyPair>,
    /// Folders as Docker's `certs.d/HOST`: `*.crt` is trusted, `*.cert` with its `*.key` is shown.
    pub tlsconfigdir: Vec<PathBuf>,
    /// How many blobs are fetched from it at once, and how many are pushed to it; 4 by default, as
    /// in BuildKit. Not a key of buildkitd.toml.
    #[serde(rename = "max-concurrency")]
    pub max_concurrency: Option<usize>,
}

/// A client's certificate and its private key: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct KeyPair {
    /// The private key.
    pub key: PathBuf,
    /// The certificate, with the chain that belongs to it.
    pub cert: PathBuf,
}

/// How often, and how far apart, a request is tried that fails for no lasting reason.
///
/// An answer 429 or 503 with `Retry-After` is waited for as long as it says, up to
/// `longest_delay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in a row that bring nothing, the first included.
    pub attempts_count: u32,
    /// Before the second attempt; twice as long before each further one.
    pub first_delay: Duration,
    /// No delay is longer.
    pub longest_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_count: 5,
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// Returns the delay after `failures_count` failures in a row.
    pub(crate) fn delay(&self, failures_count: u32) -> Duration {
        let doublings = failures_count.saturating_sub(1).min(16);
        self.longest_delay.min(self.first_delay * (1 << doublings))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            credentials: Arc::new(Anonymous),
            observer: Arc::new(()),
            user_agent: concat!("larder/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: RetryPolicy::default(),
            piece_bytes: PIECE_BYTES,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("registries", &self.registries)
            .field("user_agent", &self.user_agent)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let policy = RetryPolicy {
            longest_delay: Duration::from_secs(3),
            ..RetryPolicy::default()
        };
        let delays: Vec<u128> = (1..6).map(|n| policy.delay(n).as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 3000, 3000]);
    }

    #[test]
    fn sections_have_buildkitd_keys() {
        let config: RegistryConfig = toml::from_str(
            r#"mirrors = ["harbor.example/proxy"]
               http = true
               max-concurrency = 7
               ca = ["a.pem"]
               [[keypair]]
               key = "k.pem"
               cert = "c.pem""#,
        )
        .unwrap();
        assert_eq!(config.mirrors, ["harbor.example/proxy"]);
        assert_eq!((config.http, config.insecure), (Some(true), None));
        assert_eq!(config.max_concurrency, Some(7));
        assert_eq!(config.keypair[0].cert, PathBuf::from("c.pem"));
    }
}
