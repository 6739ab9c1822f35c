//! Logins at registries, kept where Docker's tools keep theirs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use larder_registry::{Client, Credentials, DockerConfig, KnownLogin, registry_name};

use crate::config::Config;
use crate::error::{BuildError, Result};
use crate::task::Tasks;

/// The logins of a user.
#[derive(Debug)]
pub struct Logins<'a> {
    config: &'a Config,
    docker_config: DockerConfig,
}

/// What a user shows to a registry.
#[derive(Clone)]
pub struct Login {
    /// The registry, as `docker login` takes it: a host, an address, or nothing for Docker Hub.
    pub server: String,
    /// The user's name.
    pub username: String,
    /// The password, or what stands for it.
    pub password: String,
    /// Whether plain http and unknown certificates will do.
    pub insecure: bool,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("server", &self.server)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Where a login is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginPlace {
    /// With a credential helper.
    Helper,
    /// In this file, in the clear.
    File(PathBuf),
}

impl<'a> Logins<'a> {
    /// Returns the logins in the `config.json` of `directory`, which need not exist. `config` has
    /// what is special about registries.
    pub fn new(config: &'a Config, directory: PathBuf) -> Self {
        Self {
            config,
            docker_config: DockerConfig::new(directory),
        }
    }

    /// Shows a login to its registry, and keeps it if the registry accepts it.
    ///
    /// # Errors
    /// Of class `Denied` when the registry refuses it; when it can't be reached, or the login can't
    /// be kept.
    pub fn log_in(&self, login: Login) -> Result<LoginPlace> {
        let registry = registry_name(&login.server)?;
        let credentials = Credentials::Password {
            username: login.username,
            password: login.password.into(),
        };
        let mut client = Client::new(larder_registry::Config {
            registries: self.config.registry.clone(),
            credentials: Arc::new(KnownLogin(credentials.clone())),
            ..larder_registry::Config::default()
        });
        if login.insecure {
            client = client.trusting(registry);
        }
        let tasks = Tasks::default();
        let shown = tasks.block_on(client.log_in(registry));
        shown?.map_err(|error| {
            // What helps who has no login does not help who has a wrong one.
            BuildError::from(error).without_hint()
        })?;
        if self.docker_config.store(registry, &credentials)? {
            return Ok(LoginPlace::Helper);
        }
        Ok(LoginPlace::File(self.docker_config.path().to_owned()))
    }

    /// Forgets the login at a registry, if there is one. Returns the registry's name.
    ///
    /// # Errors
    /// When `server` is not a registry, or the login can't be removed from where it is kept.
    pub fn log_out(&self, server: &str) -> Result<String> {
        let registry = registry_name(server)?;
        self.docker_config.erase(registry)?;
        Ok(registry.to_owned())
    }
}
