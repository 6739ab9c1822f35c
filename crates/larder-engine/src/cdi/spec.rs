//! The files of specifications (`cncf-tags/container-device-interface`, `SPEC.md`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::yaml;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A specification: devices of one kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    /// Read to see that it is there.
    #[serde(rename = "cdiVersion")]
    _version: String,
    pub(super) kind: String,
    #[serde(default, deserialize_with = "annotations")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

/// A device.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, deserialize_with = "annotations")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) container_edits: ContainerEdits,
}

/// What a container sees of a device.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerEdits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    #[serde(alias = "additionalGIDs")]
    pub(super) additional_gids: Vec<u32>,
    pub(super) intel_rdt: Option<serde_json::Value>,
    pub(super) net_devices: Vec<serde_json::Value>,
}

/// A node in `/dev`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceNode {
    pub(super) path: String,
    pub(super) host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A file or directory of the host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: String,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// A program of the host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: String,
}

/// Returns whether a file is a specification, by its name.
pub(super) fn is_spec(file: &Path) -> bool {
    matches!(
        file.extension().and_then(|ending| ending.to_str()),
        Some("json" | "yaml" | "yml")
    )
}

impl Spec {
    /// Reads a file; returns what is wrong with it if it is no specification.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let said = |error: std::io::Error| error.to_string();
        if fs_err::metadata(file).map_err(said)?.len() > MAX_FILE_BYTES {
            return Err("it is too large".to_owned());
        }
        let text = fs_err::read_to_string(file).map_err(said)?;
        let value = if file.extension().is_some_and(|ending| ending == "json") {
            serde_json::from_str(&text).map_err(|error| error.to_string())?
        } else {
            yaml::parse(&text)?
        };
        let spec: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        match spec.kind.split_once('/') {
            Some((vendor, class)) if !vendor.is_empty() && !class.is_empty() => Ok(spec),
            _ => Err(format!("`{}` is no kind of devices", spec.kind)),
        }
    }
}

/// Reads texts by name; truth values and numbers are texts, too.
fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let texts = values.into_iter().map(|(key, value)| (key, text(value)));
    Ok(texts.collect())
}
