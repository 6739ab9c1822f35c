//! `larder.toml`: the keys of BuildKit's `buildkitd.toml` wherever one exists.
//!
//! ```toml
//! root = "/var/lib/larder"
//!
//! [build]
//! host-ca = true
//!
//! [registry."docker.io"]
//! mirrors = ["mirror.example:5000"]
//!
//! [worker.oci]
//! maxUsedSpace = "60GB"
//! ```
//!
//! `[cache]` and `[store]` are larder's own: the former has bounds that hold at any moment, where those of BuildKit
//! are what is pruned to after a build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use larder_exec::network::Helper;
use larder_store::{Ceiling, Filter, PruneRequest, default_policies};
use serde::{Deserialize, Deserializer};

use crate::error::BuildError;

/// The configuration of an engine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The state directory.
    pub root: Option<PathBuf>,
    /// What applies to every build.
    pub build: BuildConfig,
    /// Registries, by host.
    pub registry: BTreeMap<String, larder_registry::RegistryConfig>,
    /// The worker.
    pub worker: WorkerConfig,
    /// The bounds of the state directory.
    pub cache: CacheConfig,
    /// How the state directory keeps things.
    pub store: StoreConfig,
    /// What builds may be allowed with `--allow`: everything if this is absent.
    #[serde(rename = "insecure-entitlements")]
    pub insecure_entitlements: Option<Vec<String>>,
    /// Devices for steps.
    pub cdi: CdiConfig,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[build]`: what applies to every build.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct BuildConfig {
    /// Whether RUN steps are lent the host's CA certificates and proxy settings.
    pub host_ca: bool,
    /// What network steps have that choose none: `auto`, `host`, `pasta` or `slirp4netns`.
    pub network: DefaultNetwork,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[build] network`: the network of steps that choose none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DefaultNetwork {
    /// One of their own, where a helper gives it; else the host's.
    #[default]
    Auto,
    /// The host's.
    Host,
    /// One of their own, through this helper.
    Helper(Helper),
}

impl TryFrom<String> for DefaultNetwork {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let helper = || Helper::ALL.into_iter().find(|helper| helper.name() == text);
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "host" => Ok(Self::Host),
            _ => helper().map(Self::Helper).ok_or_else(|| {
                format!("`{text}` is no network (expected auto, host, pasta or slirp4netns)")
            }),
        }
    }
}

/// `[cdi]`: devices for steps.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CdiConfig {
    /// Whether there are none.
    pub disabled: bool,
    /// Where their specifications are, instead of the usual directories.
    pub spec_dirs: Option<Vec<PathBuf>>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// Where specifications of devices are, as with BuildKit.
const CDI_DIRECTORIES: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

impl CdiConfig {
    /// Returns where specifications are; those of later directories win.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        match &self.spec_dirs {
            _ if self.disabled => Vec::new(),
            Some(directories) => directories.clone(),
            None => CDI_DIRECTORIES.map(PathBuf::from).into(),
        }
    }
}

/// `[cache]`: bounds of the state directory that are never passed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct CacheConfig {
    /// The most that the state directory takes.
    pub max: Option<DiskSpace>,
    /// The most that cache mounts take of it, half by default.
    pub mounts: Option<DiskSpace>,
    /// What is not removed to keep the disk free.
    pub reserved: Option<DiskSpace>,
    /// What of the disk is kept free.
    pub min_free: Option<DiskSpace>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

impl CacheConfig {
    fn is_bounded(&self) -> bool {
        self.max.is_some() || self.min_free.is_some()
    }

    /// Returns the bounds of the state directory `root`, which exists; `None` if there are none.
    pub(crate) fn ceiling(&self, root: &Path) -> Result<Option<Ceiling>, BuildError> {
        if !self.is_bounded() {
            return Ok(None);
        }
        let stat = rustix::fs::statvfs(root).map_err(|errno| {
            BuildError::internal("cannot measure the disk").with_source(std::io::Error::from(errno))
        })?;
        let disk_bytes = stat.f_blocks * stat.f_frsize;
        let bytes = |amount: Option<DiskSpace>| amount.map(|amount| amount.bytes(disk_bytes));
        let max_bytes = bytes(self.max).unwrap_or(u64::MAX);
        Ok(Some(Ceiling {
            max_bytes,
            mounts_bytes: bytes(self.mounts).unwrap_or(max_bytes / 2),
            reserved_bytes: bytes(self.reserved).unwrap_or(0),
            min_free_bytes: bytes(self.min_free).unwrap_or(0),
        }))
    }
}

/// `[store]`: how the state directory keeps things.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// What new layers are.
    pub layers: LayersConfig,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[store] layers`: what new layers are, other than those of RUN, which are directories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayersConfig {
    /// Images where that is possible, and costs less than a directory.
    #[default]
    Auto,
    /// Directories.
    Directory,
    /// EROFS images.
    Erofs,
}

/// `[worker]`: the one worker is `oci`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct WorkerConfig {
    /// `[worker.oci]`.
    pub oci: OciWorkerConfig,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[worker.oci]`: limits of the store and of parallelism.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct OciWorkerConfig {
    /// Whether the store is pruned by itself; yes by default.
    pub gc: Option<bool>,
    /// What is never pruned by itself.
    #[serde(rename = "reservedSpace", alias = "gckeepstorage")]
    pub reserved_space: Option<DiskSpace>,
    /// The most that the store may use.
    #[serde(rename = "maxUsedSpace")]
    pub max_used_space: Option<DiskSpace>,
    /// What of the disk is kept free.
    #[serde(rename = "minFreeSpace")]
    pub min_free_space: Option<DiskSpace>,
    /// Policies in place of the default ones.
    pub gcpolicy: Vec<GcPolicyConfig>,
    /// How many steps run at once; no limit by default.
    #[serde(rename = "max-parallelism")]
    pub max_parallelism: Option<usize>,
    /// How the snapshots of a new state directory are made visible.
    pub snapshotter: SnapshotterConfig,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// How snapshots are made visible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotterConfig {
    /// As this kernel and user can.
    #[default]
    Auto,
    /// By overlays.
    Overlayfs,
    /// As whole trees: each snapshot begins as a copy of its parent.
    Native,
}

/// `[[worker.oci.gcpolicy]]`: a rule of what is pruned by itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GcPolicyConfig {
    /// Whether shared and internal records count too.
    pub all: bool,
    /// Which records count: those that match one of these; all if there are none.
    #[serde(deserialize_with = "filters")]
    pub filters: Vec<Filter>,
    /// Only records unused for so long.
    #[serde(rename = "keepDuration", deserialize_with = "keep_duration")]
    pub keep_duration: Duration,
    /// See [`OciWorkerConfig::reserved_space`].
    #[serde(rename = "reservedSpace", alias = "keepBytes")]
    pub reserved_space: Option<DiskSpace>,
    /// See [`OciWorkerConfig::max_used_space`].
    #[serde(rename = "maxUsedSpace")]
    pub max_used_space: Option<DiskSpace>,
    /// See [`OciWorkerConfig::min_free_space`].
    #[serde(rename = "minFreeSpace")]
    pub min_free_space: Option<DiskSpace>,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

impl OciWorkerConfig {
    /// Returns whether there is a limit or a policy other than the default ones.
    fn is_limited(&self) -> bool {
        let limits = [
            self.reserved_space,
            self.max_used_space,
            self.min_free_space,
        ];
        !self.gcpolicy.is_empty() || limits.iter().any(Option::is_some)
    }

    /// Returns what the store is pruned by, on `disk`: the policies of the configuration, else the
    /// default ones with its limits.
    pub(crate) fn gc_policies(&self, disk: larder_store::DiskSpace) -> Vec<PruneRequest> {
        if !self.gcpolicy.is_empty() {
            let own = self.gcpolicy.iter();
            return own.map(|policy| policy.request(disk.total_bytes)).collect();
        }
        let mut policies = default_policies(disk);
        // The limits are those of all records; a policy for some kinds has its own.
        let general = policies
            .iter_mut()
            .filter(|policy| policy.filters.is_empty());
        for policy in general {
            let set = |target: &mut u64, limit: Option<DiskSpace>| {
                if let Some(limit) = limit {
                    *target = limit.bytes(disk.total_bytes);
                }
            };
            set(&mut policy.reserved_space, self.reserved_space);
            set(&mut policy.max_used_space, self.max_used_space);
            set(&mut policy.min_free_space, self.min_free_space);
        }
        policies
    }
}

impl GcPolicyConfig {
    /// Returns what it removes from a disk of `disk_bytes`.
    pub(crate) fn request(&self, disk_bytes: u64) -> PruneRequest {
        let bytes = |limit: Option<DiskSpace>| limit.map_or(0, |limit| limit.bytes(disk_bytes));
        PruneRequest {
            all: self.all,
            keep_cache_mounts: false,
            filters: self.filters.clone(),
            keep_duration: self.keep_duration,
            reserved_space: bytes(self.reserved_space),
            max_used_space: bytes(self.max_used_space),
            min_free_space: bytes(self.min_free_space),
        }
    }
}

fn filters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Filter>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| text.parse().map_err(serde::de::Error::custom))
        .collect()
}

/// Reads seconds, or a text such as `48h`.
fn keep_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    let duration = match &value {
        toml::Value::Integer(seconds) => Some(SignedDuration::from_secs(*seconds)),
        toml::Value::String(text) => text.parse().ok(),
        _ => None,
    };
    duration
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{value}` is no duration (expected seconds, `48h` or `1h30m`)"
            ))
        })
}

/// An amount of disk: bytes, or a share of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub enum DiskSpace {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk.
    Percent(u64),
}

impl DiskSpace {
    /// Returns the bytes, on a disk of `disk_bytes`.
    pub fn bytes(self, disk_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk_bytes / 100 * percent,
        }
    }
}

impl TryFrom<toml::Value> for DiskSpace {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let fail = || format!("`{value}` is no amount of disk (expected bytes, `20GB` or `10%`)");
        if let Some(bytes) = value.as_integer() {
            return u64::try_from(bytes).map(Self::Bytes).map_err(|_| fail());
        }
        let text = value.as_str().ok_or_else(fail)?.trim();
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent
                .trim()
                .parse()
                .ok()
                .filter(|percent| *percent <= 100);
            return percent.map(Self::Percent).ok_or_else(fail);
        }
        parse_bytes(text).map(Self::Bytes).ok_or_else(fail)
    }
}

/// Reads a size such as `512`, `64m`, `20GB` or `1.5GiB`. Units without an `i` are decimal only
/// when they end in `B` and are written in capitals, as in `buildkitd.toml`; `k`, `m` and `g` alone
/// are binary, as in Docker's flags.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim();
    let decimal = unit.len() == 2 && unit.ends_with('B') && !unit.starts_with(char::is_lowercase);
    let power = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => return None,
    };
    let known = matches!(
        unit.to_ascii_lowercase().get(1..).unwrap_or(""),
        "" | "b" | "ib"
    );
    let base: f64 = if decimal { 1000.0 } else { 1024.0 };
    known.then_some((number * base.powi(power)) as u64)
}

/// A configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("cannot read configuration `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error("configuration `{path}` is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where, and why.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Returns what the store is pruned by after a build. A ceiling stands in for the default
    /// policies, as it is kept to all the time.
    pub(crate) fn gc_policies(&self, disk: larder_store::DiskSpace) -> Vec<PruneRequest> {
        if self.cache.is_bounded() && !self.worker.oci.is_limited() {
            return Vec::new();
        }
        self.worker.oci.gc_policies(disk)
    }

    /// Reads `path`, which must exist.
    ///
    /// # Errors
    /// [`ConfigError`] when the file can't be read, or a value is of the wrong kind.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Reads the first of `paths` that exists; the default configuration if none does.
    ///
    /// # Errors
    /// [`ConfigError`] when a file that exists can't be used.
    pub fn read_first(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, ConfigError> {
        paths
            .into_iter()
            .find(|path| path.exists())
            .map_or_else(|| Ok(Self::default()), |path| Self::read(&path))
    }

    /// Returns the keys that larder does not know, with their tables: `worker.oci.snapshotter`.
    pub fn unknown_keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut add = |table: &str, unknown: &BTreeMap<String, toml::Value>| {
            keys.extend(unknown.keys().map(|key| format!("{table}{key}")));
        };
        add("", &self.unknown);
        add("build.", &self.build.unknown);
        add("cache.", &self.cache.unknown);
        add("cdi.", &self.cdi.unknown);
        add("store.", &self.store.unknown);
        add("worker.", &self.worker.unknown);
        add("worker.oci.", &self.worker.oci.unknown);
        for policy in &self.worker.oci.gcpolicy {
            add("worker.oci.gcpolicy.", &policy.unknown);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_keys_of_buildkitd_toml() {
        let config: Config = toml::from_str(
            r#"
            insecure-entitlements = ["network.host"]
            [build]
            host-ca = true
            network = "slirp4netns"
            [cdi]
            specDirs = ["/dev/cdi"]
            [registry."docker.io"]
            mirrors = ["127.0.0.1:5000"]
            [worker.oci]
            maxUsedSpace = "20GB"
            reservedSpace = 100
            minFreeSpace = "10%"
            shelves = 3
            "#,
        )
        .unwrap();
        assert!(config.build.host_ca);
        let helper = DefaultNetwork::Helper(Helper::Slirp4netns);
        assert_eq!(config.build.network, helper);
        assert_eq!(config.cdi.directories(), [Path::new("/dev/cdi")]);
        assert!(toml::from_str::<Config>("build.network = 'bridge'").is_err());
        assert_eq!(config.registry["docker.io"].mirrors, ["127.0.0.1:5000"]);
        assert_eq!(
            config.worker.oci.max_used_space,
            Some(DiskSpace::Bytes(20_000_000_000))
        );
        assert_eq!(
            config.worker.oci.min_free_space,
            Some(DiskSpace::Percent(10))
        );
        assert_eq!(config.unknown_keys(), ["worker.oci.shelves"]);
    }

    #[test]
    fn a_policy_becomes_a_request() {
        let policy: GcPolicyConfig = toml::from_str(
            r#"
            filters = ["type==source.local", "type==exec.cachemount,unused-for=1h"]
            keepDuration = "48h"
            keepBytes = 100
            maxUsedSpace = "25%"
            "#,
        )
        .unwrap();
        let request = policy.request(2000);
        assert_eq!(request.filters.len(), 2);
        assert!(!request.all && !request.keep_cache_mounts);
        assert_eq!(request.keep_duration, Duration::from_secs(48 * 60 * 60));
        assert_eq!(
            (
                request.reserved_space,
                request.max_used_space,
                request.min_free_space
            ),
            (100, 500, 0)
        );
        let seconds: GcPolicyConfig = toml::from_str("keepDuration = 90").unwrap();
        assert_eq!(seconds.keep_duration, Duration::from_secs(90));
        for bad in [
            "keepDuration = -1",
            "keepDuration = \"soon\"",
            "filters = [\"colour=red\"]",
        ] {
            assert!(toml::from_str::<GcPolicyConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ceiling_stands_in_for_the_default_policies() {
        let disk = larder_store::DiskSpace {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
        };
        let ceiling = |text: &str| {
            let config: Config = toml::from_str(text).unwrap();
            let ceiling = config.cache.ceiling(Path::new("/")).unwrap();
            (ceiling, config.gc_policies(disk).len())
        };
        assert_eq!(ceiling(""), (None, 4));
        let (bounds, policies) = ceiling("[cache]\nmax = \"50GB\"");
        let bounds = bounds.unwrap();
        assert_eq!(bounds.max_bytes, 50_000_000_000);
        assert_eq!(bounds.mounts_bytes, 25_000_000_000);
        assert_eq!((bounds.min_free_bytes, policies), (0, 0));
        let (bounds, policies) = ceiling(
            "[cache]\nmin-free = 7\nmounts = 5\nreserved = 3\n[worker.oci]\nmaxUsedSpace = 9",
        );
        let bounds = bounds.unwrap();
        assert_eq!((bounds.max_bytes, bounds.min_free_bytes), (u64::MAX, 7));
        assert_eq!((bounds.mounts_bytes, bounds.reserved_bytes), (5, 3));
        assert_eq!(policies, 4);
        let config: Config = toml::from_str("[cache]\nmax = 1\nlimit = 2").unwrap();
        assert_eq!(config.unknown_keys(), ["cache.limit"]);
    }

    #[test]
    fn limits_are_those_of_general_policies() {
        let disk = larder_store::DiskSpace {
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
        };
        let most = |config: &str| -> Vec<u64> {
            let config: OciWorkerConfig = toml::from_str(config).unwrap();
            let policies = config.gc_policies(disk);
            policies
                .iter()
                .map(|policy| policy.max_used_space)
                .collect()
        };
        let default = most("");
        let limited = most("maxUsedSpace = 7");
        assert_eq!(limited[0], default[0]);
        assert_eq!(limited[1..], [7, 7, 7]);
        assert_eq!(most("[[gcpolicy]]\nmaxUsedSpace = 9"), [9]);
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("512", 512),
            ("64m", 64 << 20),
            ("1kb", 1024),
            ("20GB", 20_000_000_000),
            ("1GiB", 1 << 30),
            ("1.5k", 1536),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "m", "1x", "1gbb", "-1"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }
}
