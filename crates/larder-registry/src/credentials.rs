use std::future::{Future, ready};
use std::io::ErrorKind as IoErrorKind;
use std::path::PathBuf;
use std::pin::Pin;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use fs_err as fs;
use tokio::sync::oneshot;

use crate::endpoint::{DOCKER_HUB, DOCKER_HUB_HOST};
use crate::{Error, ErrorKind, Secret};

/// The key under which `docker login` keeps the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// How helpers say that they know none. It is not an error then.
const HELPER_KNOWS_NONE: &str = "credentials not found";

/// What a user shows to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password, or what stands for it.
        password: Secret,
    },
    /// An OAuth2 refresh token, as `docker login` gets it from some registries.
    IdentityToken(Secret),
}

/// What a [`CredentialSource`] returns.
pub type CredentialsFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Credentials>, Error>> + Send + 'a>>;

/// Knows the user's credentials.
pub trait CredentialSource: Send + Sync {
    /// Returns the credentials for `host` (`host[:port]`; `registry-1.docker.io` for Docker Hub);
    /// `None` where the user has none there. Called only after the registry asked for some.
    fn credentials<'a>(&'a self, host: &'a str) -> CredentialsFuture<'a>;
}

/// Nobody in particular.
#[derive(Debug, Clone, Copy)]
pub struct Anonymous;

impl CredentialSource for Anonymous {
    fn credentials<'a>(&'a self, _host: &'a str) -> CredentialsFuture<'a> {
        Box::pin(ready(Ok(None)))
    }
}

/// The credentials in Docker's config.json, and of the helpers that it names.
///
/// The file is read each time, so that a login while larder runs counts. A helper is a program
/// `docker-credential-NAME` on the search path; it runs beside the caller's runtime, on a thread
/// that ends with it.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    pub(crate) file: PathBuf,
}

impl DockerConfig {
    /// Reads config.json in `dir`: the folder that `DOCKER_CONFIG` names, or `~/.docker`. It need
    /// not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            file: dir.into().join("config.json"),
        }
    }

    fn look_up(&self, host: &str) -> Result<Option<Credentials>, Error> {
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = "cannot read Docker's `config.json`";
                return Err(Error::new(ErrorKind::Config, message).with_source(error));
            }
        };
        match get_credential_from_reader(&text[..], key_of(host)) {
            Ok(DockerCredential::IdentityToken(token)) => {
                Ok(Some(Credentials::IdentityToken(token.into())))
            }
            Ok(DockerCredential::UsernamePassword(username, password)) => {
                Ok(Some(Credentials::Password {
                    username,
                    password: password.into(),
                }))
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
            Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
                if stdout.contains(HELPER_KNOWS_NONE) || stderr.contains(HELPER_KNOWS_NONE) =>
            {
                Ok(None)
            }
            Err(error) => {
                let message = format!(
                    "cannot get the credentials for `{host}` from Docker's `config.json`: {}",
                    reason(&error)
                );
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }
}

/// Returns under which key the credentials for `host` are kept.
pub(crate) fn key_of(host: &str) -> &str {
    match host {
        DOCKER_HUB | DOCKER_HUB_HOST => DOCKER_HUB_KEY,
        host => host,
    }
}

/// Returns why, in the words of a user, and without what a helper printed: it may be a secret.
fn reason(error: &CredentialRetrievalError) -> String {
    match error {
        CredentialRetrievalError::HelperCommunicationError => {
            "its credential helper can't be run".to_owned()
        }
        CredentialRetrievalError::MalformedHelperResponse => {
            "its credential helper gave a malformed answer".to_owned()
        }
        CredentialRetrievalError::HelperFailure { helper, .. } => format!("`{helper}` failed"),
        CredentialRetrievalError::CredentialDecodingError => "`auth` can't be decoded".to_owned(),
        CredentialRetrievalError::CredentialMismatchError => {
            "`auth` contradicts `username` and `password`".to_owned()
        }
        _ => "it is malformed".to_owned(),
    }
}

impl CredentialSource for DockerConfig {
    fn credentials<'a>(&'a self, host: &'a str) -> CredentialsFuture<'a> {
        let (answer, answered) = oneshot::channel();
        let (source, host) = (self.clone(), host.to_owned());
        // A helper may wait for its user, which must not hold up the runtime.
        std::thread::spawn(move || {
            // Nobody waits any more if the caller was cancelled.
            let _ = answer.send(source.look_up(&host));
        });
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| {
                let message = "the search for credentials ended without an answer";
                Err(Error::new(ErrorKind::Config, message))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str, host: &str, expected: Option<(&str, &str)>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        let found = DockerConfig::new(dir.path()).look_up(host).unwrap();
        let found = found.map(|credentials| match credentials {
            Credentials::Password { username, password } => (username, password),
            Credentials::IdentityToken(token) => ("<token>".to_owned(), token),
        });
        let found = found
            .as_ref()
            .map(|(name, secret)| (name.as_str(), secret.expose()));
        assert_eq!(found, expected, "{config}");
    }

    #[test]
    fn finds_what_docker_login_wrote() {
        let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YWxpOm9wZW4gc2VzYW1l"}}}"#;
        check(hub, "registry-1.docker.io", Some(("ali", "open sesame")));
        check(hub, "ghcr.io", None);
        let own = r#"{"auths":{"https://r.example:5000/v2/":{"auth":"YTpi"}}}"#;
        check(own, "r.example:5000", Some(("a", "b")));
        check(own, "r.example", None);
        let token = r#"{"auths":{"r.example":{"auth":"YTo=","identitytoken":"t"}}}"#;
        check(token, "r.example", Some(("<token>", "t")));
        check("{}", "r.example", None);
    }

    #[test]
    fn a_missing_file_means_nobody_and_a_broken_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let source = DockerConfig::new(dir.path());
        assert_eq!(source.look_up("r.example").unwrap(), None);
        for broken in ["{", r#"{"auths":{"r.example":{"auth":"%"}}}"#] {
            fs::write(dir.path().join("config.json"), broken).unwrap();
            let error = source.look_up("r.example").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials::Password {
            username: "ali".to_owned(),
            password: Secret::from("open sesame".to_owned()),
        };
        assert!(!format!("{credentials:?}").contains("sesame"));
    }
}
