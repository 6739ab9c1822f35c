#![expect(
    clippy::zero_sized_map_values,
    reason = "the format writes sets as maps to empty objects"
)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Platform};

/// The image config: what the image runs, and what it is made of.
///
/// Fields that larder does not know are kept in [`ImageConfig::other`]. [`ImageConfig::to_json`]
/// writes the keys in alphabetical order, as BuildKit does, so that equal images have equal
/// digests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// The author, from MAINTAINER.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// How to run the image.
    #[serde(default)]
    pub config: ContainerConfig,
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// One entry an instruction, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
    /// `linux`, …
    pub os: String,
    /// Windows only.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Windows only.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// The architecture's variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Fields this type does not know, by name.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The diff IDs, lowest layer first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// How to run an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`, names or ids; empty for root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `port/protocol`, each with an empty object.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub exposed_ports: BTreeMap<String, EmptyObject>,
    /// `NAME=value`, in the order set.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// What is run, before `cmd`.
    #[serde(skip_serializing_if = "is_empty")]
    pub entrypoint: Option<Vec<String>>,
    /// What is run, or the entry point's default arguments.
    #[serde(skip_serializing_if = "is_empty")]
    pub cmd: Option<Vec<String>>,
    /// Paths that hold data of their own, each with an empty object.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub volumes: BTreeMap<String, EmptyObject>,
    /// The working directory; empty for `/`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops a container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How to see whether a container is well (Docker's extension).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker's extension; BuildKit sets it with CMD.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Instructions for images built from this one (Docker's extension).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub on_build: Vec<String>,
    /// The shell of RUN, CMD and ENTRYPOINT (Docker's extension).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub shell: Vec<String>,
    /// Fields this type does not know, by name.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The `{}` of a set that is written as a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EmptyObject {}

/// How to see whether a container is well. Times are nanoseconds; 0 means inherited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// After the start, while failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks in the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unwell.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// What one instruction did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// By whom, from MAINTAINER.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Which program, `buildkit.dockerfile.v0`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether the instruction made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Returns the platform the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Platform::linux(&self.architecture, &self.variant)
        }
    }

    /// Returns the compact JSON, top-level keys in alphabetical order.
    pub fn to_json(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("maps have text keys");
        let Value::Object(fields) = value else {
            unreachable!("a struct is an object")
        };
        let sorted: BTreeMap<String, Value> = fields.into_iter().collect();
        go_json(&sorted)
    }
}

/// Returns compact JSON as Go's `encoding/json` writes it: `<`, `>`, `&`, U+2028 and U+2029 are
/// written as `\u` escapes.
pub fn go_json(value: &impl Serialize) -> Vec<u8> {
    go_escaped(&serde_json::to_string(value).expect("maps have text keys")).into_bytes()
}

/// Returns indented JSON as Go's `json.MarshalIndent` writes it with two blanks; escapes are those
/// of [`go_json`].
pub fn go_json_pretty(value: &impl Serialize) -> String {
    go_escaped(&serde_json::to_string_pretty(value).expect("maps have text keys"))
}

fn go_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Of the characters that begin with this byte, two are escaped.
    let is_candidate = |byte: u8| matches!(byte, b'<' | b'>' | b'&' | 0xe2);
    while let Some(end) = rest.bytes().position(is_candidate) {
        let (plain, from) = rest.split_at(end);
        out.push_str(plain);
        let c = from.chars().next().expect("a character begins here");
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
        rest = &from[c.len_utf8()..];
    }
    out.push_str(rest);
    out
}

/// An empty list is left out, as by BuildKit.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn is_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Reads `null` as the empty collection, as Go's decoder does.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_by_go() {
        for (text, expected) in [
            ("", r#""""#),
            ("a < b && b > c", r#""a \u003c b \u0026\u0026 b \u003e c""#),
            ("<", r#""\u003c""#),
            ("â€™ ü 日", r#""â€™ ü 日""#),
            ("a\u{2028}€\u{2029}", r#""a\u2028€\u2029""#),
        ] {
            assert_eq!(go_json(&text), expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn json_is_sorted_without_what_is_empty_and_keeps_unknown_fields() {
        let text = r#"{"os":"linux","architecture":"amd64","moby.x":1,"config":{"Cmd":["a<b"],"Entrypoint":[],"Env":null,"Foo":"bar"},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(
            String::from_utf8(config.to_json()).unwrap(),
            r#"{"architecture":"amd64","config":{"Cmd":["a\u003cb"],"Foo":"bar"},"moby.x":1,"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#
        );
    }
}
