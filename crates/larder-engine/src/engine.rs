use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use larder_exec::probe::Overlay;
use larder_exec::rootless::IdMap;
use larder_store::{Clock, Options, Snapshotter, Store};
use larder_tree::apply::Ownership;

use crate::config::Config;
use crate::error::{BuildError, ErrorClass, Result};
use crate::task::Tasks;

/// Names the snapshotter that a state directory was made with.
const SNAPSHOTTER_FILE: &str = "snapshotter";

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
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    registry: OnceLock<larder_registry::Client>,
}

impl Engine {
    /// Opens the state directory, and makes it if it is absent.
    ///
    /// # Errors
    /// When the directory can't be made, read or written.
    pub fn open(options: EngineOptions) -> Result<Self> {
        let snapshotter = snapshotter(&options.root)?;
        let clock = options.clock.clone();
        let ceiling = options.config.cache.ceiling(&options.root)?;
        let store = Store::open(
            &options.root,
            Options {
                clock: options.clock,
                snapshotter,
                ownership: ownership(),
                ceiling,
            },
        )?;
        Ok(Self {
            store,
            config: options.config,
            clock,
            tasks: Tasks::default(),
            registry: OnceLock::new(),
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

/// Returns how the snapshots of a state directory are made visible: as they were, else as this
/// kernel and user can.
fn snapshotter(root: &Path) -> Result<Snapshotter> {
    let file = root.join(SNAPSHOTTER_FILE);
    let known = fs_err::read_to_string(&file).unwrap_or_default();
    match known.trim() {
        "overlay" => return Ok(Snapshotter::Overlay { userxattr: false }),
        "overlay-userxattr" => return Ok(Snapshotter::Overlay { userxattr: true }),
        "native" => return Ok(Snapshotter::Native),
        _ => {}
    }
    let failed = |source: std::io::Error| {
        let class = match source.kind() {
            std::io::ErrorKind::StorageFull => ErrorClass::Exhausted,
            _ => ErrorClass::Denied,
        };
        let message = format!("cannot write to the state directory `{}`", root.display());
        BuildError::new(class, message)
            .with_source(source)
            .with_hint("choose another with `--root` or `LARDER_ROOT`")
    };
    std::fs::create_dir_all(root).map_err(failed)?;
    let (name, snapshotter) = match larder_exec::probe::overlay(root) {
        Overlay::Available { userxattr: false } => {
            ("overlay", Snapshotter::Overlay { userxattr: false })
        }
        Overlay::Available { userxattr: true } => (
            "overlay-userxattr",
            Snapshotter::Overlay { userxattr: true },
        ),
        Overlay::Unavailable(error) => {
            tracing::warn!(%error, "overlayfs is not available: snapshots are copies");
            ("native", Snapshotter::Native)
        }
    };
    let temporary = root.join(format!("{SNAPSHOTTER_FILE}.{}", std::process::id()));
    std::fs::write(&temporary, name).map_err(failed)?;
    std::fs::rename(&temporary, &file).map_err(failed)?;
    Ok(snapshotter)
}
