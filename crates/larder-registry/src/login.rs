//! What `docker login` and `docker logout` do with Docker's config.json.

use std::future::ready;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde_json::{Map, Value, json};

use crate::credentials::key_of;
use crate::endpoint::{DOCKER_HUB, DOCKER_HUB_HOST};
use crate::{CredentialSource, Credentials, CredentialsFuture, DockerConfig, Error, ErrorKind};

/// The name under which credential helpers keep a token that stands alone.
const TOKEN_USER: &str = "<token>";

/// The same credentials for every host: those that a user logs in with.
#[derive(Debug, Clone)]
pub struct KnownLogin(pub Credentials);

impl CredentialSource for KnownLogin {
    fn credentials<'a>(&'a self, _host: &'a str) -> CredentialsFuture<'a> {
        Box::pin(ready(Ok(Some(self.0.clone()))))
    }
}

/// Returns the registry that the argument of `docker login` means, as image references name it:
/// scheme and path are left out, nothing is Docker Hub.
///
/// # Errors
/// `Config`, if that is not a host.
pub fn registry_name(server: &str) -> Result<&str, Error> {
    let server = server.trim();
    let rest = server.strip_prefix("https://").unwrap_or(server);
    let rest = rest.strip_prefix("http://").unwrap_or(rest);
    let host = rest.split('/').next().unwrap_or(rest);
    let host_char = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
    match host {
        "" if server.is_empty() => Ok(DOCKER_HUB),
        DOCKER_HUB | DOCKER_HUB_HOST | "index.docker.io" => Ok(DOCKER_HUB),
        host if !host.is_empty() && host.chars().all(host_char) => Ok(host),
        _ => {
            let message = format!("`{server}` is not a registry");
            Err(Error::new(ErrorKind::Config, message))
        }
    }
}

impl DockerConfig {
    /// Keeps `credentials` for `registry`, where config.json says: with a credential helper, else
    /// in the file itself. All else in the file stays as it is. Returns whether a helper has them;
    /// the file holds them in the clear.
    ///
    /// # Errors
    /// `Config`, when the file can't be read or written, or the helper fails.
    pub fn store(&self, registry: &str, credentials: &Credentials) -> Result<bool, Error> {
        let key = key_of(registry);
        let mut config = self.read()?;
        let helper = helper_of(&config, key);
        let entry = match &helper {
            Some(helper) => {
                let (username, secret) = match credentials {
                    Credentials::Password { username, password } => (username.as_str(), password),
                    Credentials::IdentityToken(token) => (TOKEN_USER, token),
                };
                let login = json!({
                    "ServerURL": key,
                    "Username": username,
                    "Secret": secret.expose(),
                });
                run_helper(helper, "store", &login.to_string())?;
                // Docker's tools see by it that there is a login.
                json!({})
            }
            None => match credentials {
                Credentials::Password { username, password } => {
                    let pair = format!("{username}:{}", password.expose());
                    json!({ "auth": STANDARD.encode(pair) })
                }
                Credentials::IdentityToken(token) => json!({ "identitytoken": token.expose() }),
            },
        };
        let auths = object(&mut config, "auths")?;
        auths.insert(key.to_owned(), entry);
        self.write(&config)?;
        Ok(helper.is_some())
    }

    /// Forgets the credentials for `registry`. Returns whether there were any.
    ///
    /// # Errors
    /// As [`DockerConfig::store`].
    pub fn erase(&self, registry: &str) -> Result<bool, Error> {
        let key = key_of(registry);
        let mut config = self.read()?;
        let helper = helper_of(&config, key);
        let has_auths = config.contains_key("auths");
        let removed = has_auths && object(&mut config, "auths")?.shift_remove(key).is_some();
        if let Some(helper) = helper {
            run_helper(&helper, "erase", key)?;
        }
        if removed {
            self.write(&config)?;
        }
        Ok(removed)
    }

    /// Returns the file's path, for a user's message.
    pub fn path(&self) -> &Path {
        &self.file
    }

    fn read(&self) -> Result<Map<String, Value>, Error> {
        let text = match fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
            Err(error) => return Err(failed("read", error)),
        };
        if text.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&text).map_err(|error| failed("read", error.into()))
    }

    /// Replaces the file in one step; nobody else may read it. A symbolic link stays one.
    fn write(&self, config: &Map<String, Value>) -> Result<(), Error> {
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(config, &mut serializer)
            .map_err(|error| failed("write", error.into()))?;
        self.replace(&text).map_err(|error| failed("write", error))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let file = match fs::canonicalize(&self.file) {
            Ok(target) => target,
            Err(_) => self.file.clone(),
        };
        if let Some(dir) = file.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        let temporary = temporary(&file);
        // A process of the same number may have been killed.
        let _ = fs::remove_file(&temporary);
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut out| {
                out.write_all(text)?;
                out.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &file));
        if written.is_err() {
            // The first error tells more than a left-over would.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn temporary(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    file.with_file_name(name)
}

/// Returns the helper that keeps the credentials of `key`, if config.json names one.
fn helper_of(config: &Map<String, Value>, key: &str) -> Option<String> {
    let own = config
        .get("credHelpers")
        .and_then(|helpers| helpers.get(key));
    let named = own.or_else(|| config.get("credsStore"))?.as_str()?;
    (!named.is_empty()).then(|| named.to_owned())
}

/// Returns the object `key` of config.json, which is made if it is not there.
fn object<'a>(
    config: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>, Error> {
    let value = config.entry(key).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().ok_or_else(|| {
        let message = format!("`{key}` of Docker's `config.json` is not an object");
        Error::new(ErrorKind::Config, message)
    })
}

/// Runs `docker-credential-HELPER ACTION`. What it prints may hold a secret, and is not shown.
fn run_helper(helper: &str, action: &str, input: &str) -> Result<(), Error> {
    let program = format!("docker-credential-{helper}");
    let broken = |what: &str| {
        let message = format!("the credential helper `{program}` {what}");
        Error::new(ErrorKind::Config, message)
    };
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| broken("can't be run").with_source(error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read will tell by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = child
        .wait()
        .map_err(|error| broken("was lost").with_source(error))?;
    if status.success() {
        Ok(())
    } else {
        Err(broken(&format!("failed to {action} the login")))
    }
}

fn failed(what: &str, error: io::Error) -> Error {
    let message = format!("cannot {what} Docker's `config.json`");
    Error::new(ErrorKind::Config, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn login(username: &str, password: &str) -> Credentials {
        Credentials::Password {
            username: username.to_owned(),
            password: password.to_owned().into(),
        }
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join("config.json")).unwrap()
    }

    #[test]
    fn servers_are_named_in_many_ways() {
        for (server, expected) in [
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry.example:5000", "registry.example:5000"),
            ("http://registry.example/v2/", "registry.example"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(registry_name(server).unwrap(), expected, "{server}");
        }
        for bad in ["a b", "/x", "https://", "user@host"] {
            let error = registry_name(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn a_login_leaves_all_else_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let before = r#"{"proxies":{"default":{"httpProxy":"http://p"}},"auths":{"a":{"auth":"eDp5"}},"x":[1]}"#;
        fs::write(dir.path().join("config.json"), before).unwrap();
        let config = DockerConfig::new(dir.path());
        assert!(
            !config
                .store("r.example", &login("ali", "open sesame"))
                .unwrap()
        );
        let expected = "{\n\t\"proxies\": {\n\t\t\"default\": {\n\t\t\t\"httpProxy\": \"http://p\"\n\t\t}\n\t},\n\t\
            \"auths\": {\n\t\t\"a\": {\n\t\t\t\"auth\": \"eDp5\"\n\t\t},\n\t\t\"r.example\": {\n\t\t\t\
            \"auth\": \"YWxpOm9wZW4gc2VzYW1l\"\n\t\t}\n\t},\n\t\"x\": [\n\t\t1\n\t]\n}";
        assert_eq!(text(dir.path()), expected);
        assert!(config.erase("r.example").unwrap());
        assert!(!config.erase("r.example").unwrap());
        let after: Value = serde_json::from_str(&text(dir.path())).unwrap();
        assert_eq!(after, serde_json::from_str::<Value>(before).unwrap());
    }

    #[test]
    fn nobody_else_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home/.docker");
        let config = DockerConfig::new(&home);
        config.store("docker.io", &login("ali", "x")).unwrap();
        assert!(text(&home).contains("https://index.docker.io/v1/"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home.join("config.json")), 0o600);
        assert_eq!(mode(&home), 0o700);
        let names: Vec<_> = fs::read_dir(&home).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left");
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (real, home) = (dir.path().join("real"), dir.path().join("home"));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&home).unwrap();
        fs::write(real.join("config.json"), "").unwrap();
        let link = home.join("config.json");
        std::os::unix::fs::symlink(real.join("config.json"), &link).unwrap();
        let config = DockerConfig::new(&home);
        config.store("r.example", &login("ali", "x")).unwrap();
        assert!(link.is_symlink());
        assert!(text(&real).contains("r.example"));
    }

    #[test]
    fn a_broken_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let config = DockerConfig::new(dir.path());
        for broken in ["{", "[]", r#"{"auths":3}"#] {
            fs::write(dir.path().join("config.json"), broken).unwrap();
            let error = config.store("r.example", &login("a", "b")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(text(dir.path()), broken);
        }
    }
}
