//! How `git` proves who asks.

use std::os::fd::{AsRawFd as _, OwnedFd};

use base64::Engine as _;
use larder_llb::git::GitSource;

use super::Access;
use crate::error::{BuildError, ErrorClass, Result};
use crate::ops::ssh::{self, AgentSocket};

/// Where the keys of hosts lie that a definition names.
const KNOWN_HOSTS: &str = "known_hosts";
/// Enough for the keys of many hosts.
const KNOWN_HOSTS_BYTES: u64 = 4 << 20;
/// Addresses whose credentials serve all that begins with them.
const SHARED_SCOPES: [&str; 2] = ["https://github.com/", "https://www.github.com/"];

/// Credentials for one source, and for those of its submodules that have the same address.
pub(super) struct Auth {
    /// What is sent to servers, and to which.
    header: Option<(String, String)>,
    agent: Option<AgentSocket>,
    /// A directory in memory.
    directory: Option<OwnedFd>,
    /// Whether `known_hosts` are given, and no others count.
    has_known_hosts: bool,
}

impl Auth {
    /// For what needs none.
    pub(super) fn none() -> Self {
        Self {
            header: None,
            agent: None,
            directory: None,
            has_known_hosts: false,
        }
    }

    /// Reads the secrets that a source names, and connects to its agent.
    pub(super) fn new(source: &GitSource, access: Access<'_>) -> Result<Self> {
        let mut auth = Self::none();
        if source.remote.scheme().is_http() {
            let value = secret(source, access)?.or_else(|| own_credentials(source));
            auth.header = value.map(|value| (scope(source), value));
        }
        if let Some(id) = &source.ssh_id {
            auth.agent = Some(AgentSocket::serve(
                ssh::required(access.ssh, id)?,
                (0, 0),
                0o600,
            )?);
            let directory = larder_exec::mount::tmpfs(Some(KNOWN_HOSTS_BYTES), 0o700)?;
            if let Some(keys) = &source.known_hosts {
                write_known_hosts(&directory, keys)?;
                auth.has_known_hosts = true;
            }
            auth.directory = Some(directory);
        }
        Ok(auth)
    }

    /// Returns the configuration that holds the credentials.
    pub(super) fn config(&self) -> impl Iterator<Item = (&str, &str)> {
        let header = self.header.iter();
        header.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the agent's socket.
    pub(super) fn agent_socket(&self) -> Option<String> {
        self.agent.as_ref().map(AgentSocket::path)
    }

    /// Returns the command that connects to servers: with the lent agent alone, to hosts that are
    /// known, or that nobody has known yet.
    pub(super) fn ssh_command(&self) -> String {
        let known = match &self.directory {
            None => "none".to_owned(),
            Some(directory) => {
                let own = format!(
                    "/proc/{}/fd/{}/{KNOWN_HOSTS}",
                    std::process::id(),
                    directory.as_raw_fd()
                );
                if self.has_known_hosts {
                    own
                } else {
                    // What is new is noted in the first.
                    format!("{own} ~/.ssh/known_hosts")
                }
            }
        };
        let strict = if self.has_known_hosts {
            "yes"
        } else {
            "accept-new"
        };
        format!(
            "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o ConnectTimeout=30 \
             -o ServerAliveInterval=30 -o StrictHostKeyChecking={strict} \
             -o 'UserKnownHostsFile={known}'"
        )
    }
}

/// Returns the header that a secret asks for: the host's own secret comes before that for all, a
/// whole header before a token.
fn secret(source: &GitSource, access: Access<'_>) -> Result<Option<String>> {
    let (header, token) = (&source.auth_header_secret, &source.auth_token_secret);
    let host = source.remote.host();
    let names = [
        (format!("{header}.{host}"), header, false),
        (format!("{token}.{host}"), token, true),
        (header.clone(), header, false),
        (token.clone(), token, true),
    ];
    for (name, _, is_token) in names.iter().filter(|(_, base, _)| !base.is_empty()) {
        let failed = |source| {
            BuildError::new(ErrorClass::NotFound, format!("cannot read secret {name}"))
                .with_source(source)
        };
        let Some(secret) = access.secrets.secret(name).map_err(failed)? else {
            continue;
        };
        let wrong = || BuildError::invalid(format!("secret {name} is no line of text"));
        let text = std::str::from_utf8(secret.expose()).map_err(|_| wrong())?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.chars().any(char::is_control) {
            return Err(wrong());
        }
        return Ok(Some(if *is_token {
            basic("x-access-token", text)
        } else {
            format!("Authorization: {text}")
        }));
    }
    Ok(None)
}

/// Returns the header for the credentials in the address itself.
fn own_credentials(source: &GitSource) -> Option<String> {
    let (user, password) = source.remote.credentials()?;
    Some(basic(&user, &password))
}

fn basic(user: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: basic {pair}")
}

/// Returns the key of the configuration whose value is sent to this address only.
fn scope(source: &GitSource) -> String {
    let url = source.remote.without_user();
    let shared = SHARED_SCOPES.iter().find(|scope| url.starts_with(**scope));
    format!("http.{}.extraHeader", shared.copied().unwrap_or(&url))
}

fn write_known_hosts(directory: &OwnedFd, keys: &str) -> Result<()> {
    use rustix::fs::{Mode, OFlags};
    use std::io::Write as _;

    let failed = |source: std::io::Error| {
        BuildError::new(ErrorClass::Exhausted, "cannot write the keys of SSH hosts")
            .with_source(source)
    };
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let file = rustix::fs::openat(directory, KNOWN_HOSTS, flags, mode);
    let mut file = std::fs::File::from(file.map_err(|errno| failed(errno.into()))?);
    file.write_all(keys.as_bytes()).map_err(failed)
}
