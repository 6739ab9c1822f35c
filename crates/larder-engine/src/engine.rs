use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use larder_exec::rootless::IdMap;
use larder_store::{Clock, Options, Store};
use larder_tree::apply::Ownership;

use crate::config::Config;
use crate::erofs::Mounts;
use crate::error::{BuildError, Result};
use crate::snapshotter;
use crate::task::Tasks;

/// What a power failure may cost of a build that goes on.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// How an engine is opened.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The state directory; made if absent.
    pub root: PathBuf,
    /// The configuration.
    pub config: Config,
    /// The clock.
    pub clock: Clock,
}

impl EngineOptions {
    /// Returns options with the default configuration and the system's clock.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            config: Config::default(),
            clock: Clock::new(Timestamp::now),
        }
    }
}

/// Builds images, and keeps what it has built. Many engines, of many processes, may share one
/// state directory.
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) mounts: Arc<Mounts>,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    registry: OnceLock<larder_registry::Client>,
    web: OnceLock<larder_registry::WebClient>,
}

impl Engine {
    /// Opens the state directory, and makes it if it is absent.
    ///
    /// # Errors
    /// When the directory can't be made, read or written.
    pub fn open(options: EngineOptions) -> Result<Self> {
        let snapshotter =
            snapshotter::choose(&options.root, options.config.worker.oci.snapshotter)?;
        let mounts = Mounts::new(&options.root, snapshotter, options.config.store.layers)?;
        let clock = options.clock.clone();
        let ceiling = options.config.cache.ceiling(&options.root)?;
        let store = Store::open(
            &options.root,
            Options {
                clock: options.clock,
                snapshotter,
                ownership: ownership(),
                mounter: Some(mounts.clone()),
                ceiling,
                settle_after: Some(SETTLE_AFTER),
            },
        )?;
        Ok(Self {
            store,
            mounts,
            config: options.config,
            clock,
            tasks: Tasks::default(),
            registry: OnceLock::new(),
            web: OnceLock::new(),
        })
    }

    /// Returns the state directory.
    pub fn root(&self) -> &Path {
        self.store.root()
    }

    /// Returns the client of all registries; made when first asked for.
    pub(crate) fn registry(&self) -> &larder_registry::Client {
        self.registry.get_or_init(|| {
            let directory = std::env::var_os("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
            let mut config = larder_registry::Config {
                registries: self.config.registry.clone(),
                ..larder_registry::Config::default()
            };
            if let Some(directory) = directory {
                config.credentials = Arc::new(larder_registry::DockerConfig::new(directory));
            }
            larder_registry::Client::new(config)
        })
    }

    /// Returns the client of all web servers; made when first asked for.
    pub(crate) fn web(&self) -> &larder_registry::WebClient {
        self.web.get_or_init(|| {
            larder_registry::WebClient::new(larder_registry::Config {
                registries: self.config.registry.clone(),
                ..larder_registry::Config::default()
            })
        })
    }

    /// Prunes the store if it is over a limit. A failure is no reason to fail what was done.
    pub(crate) fn gc(&self) {
        if self.config.worker.oci.gc == Some(false) {
            return;
        }
        let done = self.store.disk_space().and_then(|disk| {
            let policies = self.config.gc_policies(disk);
            self.store.gc(&policies)
        });
        if let Err(error) = done.map_err(BuildError::from) {
            tracing::warn!(error = error.full_message(), "the store was not pruned");
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Returns who owns the files of layers: where but one id is mapped, the user.
fn ownership() -> Ownership {
    match larder_exec::rootless::id_map() {
        IdMap::Full | IdMap::Subordinate(_) => Ownership::Preserve,
        IdMap::Single => Ownership::Current,
    }
}
