//! HTTP clients, each with the certificates of one registry.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use reqwest::redirect;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::trust::tls_config;
use crate::{Error, ErrorKind, KeyPair, RegistryConfig};

/// For a connection to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// For the next bytes of an answer to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a blob may be under way over HTTP/2: the default of 64 KiB makes a distant registry
/// slow.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Where most bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To larder.
    Down,
    /// To the registry.
    Up,
}

/// Returns a client that trusts the system's certificates and those in `section`. It follows no
/// redirects.
///
/// With `is_loopback`, it goes to this machine, which no proxy from the environment can reach. A
/// client for uploads waits for an answer as long as the caller does: what is sent takes its time.
pub(crate) fn http_client(
    section: &RegistryConfig,
    user_agent: &str,
    is_loopback: bool,
    direction: Direction,
) -> Result<reqwest::Client, Error> {
    let (mut trusted, mut shown) = (section.ca.clone(), section.keypair.clone());
    for dir in &section.tlsconfigdir {
        scan(dir, &mut trusted, &mut shown)?;
    }
    let mut builder = reqwest::Client::builder()
        .user_agent(user_agent)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .redirect(redirect::Policy::none())
        .referer(false);
    if direction == Direction::Down {
        builder = builder.read_timeout(READ_TIMEOUT);
    }
    if is_loopback {
        builder = builder.no_proxy();
    }
    let insecure = section.insecure == Some(true);
    let mut authorities = Vec::new();
    for path in &trusted {
        authorities.extend(certificates(path)?);
    }
    let shown = match shown.first() {
        Some(KeyPair { cert, key }) => Some((certificates(cert)?, private_key(key)?)),
        None => None,
    };
    let config = tls_config(authorities, shown, insecure);
    let builder = builder.tls_backend_preconfigured(config.map_err(no_tls)?);
    builder.build().map_err(no_tls)
}

fn no_tls(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Config, "cannot set up TLS for the registry").with_source(error)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>();
    certificates.map_err(|error| malformed("certificates", path, error))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let key = PrivateKeyDer::from_pem_slice(&read(path)?);
    key.map_err(|error| malformed("a certificate's key", path, error))
}

/// Adds what lies in a folder of the form of Docker's `certs.d/HOST`.
fn scan(dir: &Path, trusted: &mut Vec<PathBuf>, shown: &mut Vec<KeyPair>) -> Result<(), Error> {
    let unreadable = |error| {
        let message = "cannot read a `tlsconfigdir`";
        Error::new(ErrorKind::Config, message).with_source(error)
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => trusted.push(path),
            Some("cert") => shown.push(KeyPair {
                key: path.with_extension("key"),
                cert: path,
            }),
            _ => {}
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| {
        Error::new(ErrorKind::Config, "cannot read a registry's certificates").with_source(error)
    })
}

fn malformed(what: &str, path: &Path, error: pem::Error) -> Error {
    let message = format!("`{}` does not hold {what} in PEM", path.display());
    Error::new(ErrorKind::Config, message).with_source(error)
}
