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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

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
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[build]`: what applies to every build.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct BuildConfig {
    /// Whether RUN steps are lent the host's CA certificates and proxy settings.
    pub host_ca: bool,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
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
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

/// `[[worker.oci.gcpolicy]]`: a rule of what is pruned by itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GcPolicyConfig {
    /// Whether shared and internal records count too.
    pub all: bool,
    /// Which records count.
    pub filters: Vec<String>,
    /// Only records unused for so long: seconds, or a text such as `48h`.
    #[serde(rename = "keepDuration")]
    pub keep_duration: Option<toml::Value>,
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
            [build]
            host-ca = true
            [registry."docker.io"]
            mirrors = ["127.0.0.1:5000"]
            [worker.oci]
            maxUsedSpace = "20GB"
            reservedSpace = 100
            minFreeSpace = "10%"
            snapshotter = "auto"
            "#,
        )
        .unwrap();
        assert!(config.build.host_ca);
        assert_eq!(config.registry["docker.io"].mirrors, ["127.0.0.1:5000"]);
        assert_eq!(
            config.worker.oci.max_used_space,
            Some(DiskSpace::Bytes(20_000_000_000))
        );
        assert_eq!(
            config.worker.oci.min_free_space,
            Some(DiskSpace::Percent(10))
        );
        assert_eq!(config.unknown_keys(), ["worker.oci.snapshotter"]);
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
