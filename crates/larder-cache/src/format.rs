//! The config of a cache as it is written: JSON of the media type [`MEDIA_TYPE`].
//!
//! The keys, their order and what is left out are those of BuildKit, so that equal caches have
//! equal digests. A zero is left out, also where it is the index of a parent; a missing time is
//! written as the first second of year 1. Unknown fields are ignored on reading.

use jiff::Timestamp;
use larder_oci::{Digest, go_json};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result, check_limit};
use crate::limit;

/// The media type of a cache's config.
pub const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The `parent` of a layer that is lowest.
pub const NO_PARENT: i64 = -1;

/// The config of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheConfig {
    /// The layers, each with the one below it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub layers: Vec<LayerEntry>,
    /// The records.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub records: Vec<RecordEntry>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// The blob's digest.
    pub blob: Digest,
    /// The index of the layer below, or [`NO_PARENT`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What a manifest would tell, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// What a manifest would tell of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerAnnotations {
    /// The blob's media type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The digest of the uncompressed tar.
    #[serde(
        rename = "diffID",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_digest"
    )]
    pub diff_id: Option<Digest>,
    /// The blob's length in bytes.
    #[serde(rename = "size", default, skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// When the layer was made.
    #[serde(default, with = "go_time")]
    pub created_at: Option<Timestamp>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordEntry {
    /// Results whose layers are a layer and all below it.
    #[serde(
        rename = "layers",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "nullable"
    )]
    pub results: Vec<ResultEntry>,
    /// Results whose layers are listed.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "nullable"
    )]
    pub chains: Vec<ChainEntry>,
    /// `sha256("<op digest>@<output>")`.
    pub digest: Digest,
    /// For each input, the alternatives.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "nullable"
    )]
    pub inputs: Vec<Vec<InputEntry>>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultEntry {
    /// The index of the top layer.
    #[serde(default)]
    pub layer: i64,
    /// When the result was made.
    #[serde(default, with = "go_time")]
    pub created_at: Option<Timestamp>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainEntry {
    /// The indexes of its layers, lowest first.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<i64>,
    /// When the result was made.
    #[serde(default, with = "go_time")]
    pub created_at: Option<Timestamp>,
}

/// An alternative of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEntry {
    /// The digest of what is selected.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_digest"
    )]
    pub selector: Option<Digest>,
    /// The index of the record.
    #[serde(default)]
    pub link: i64,
}

impl CacheConfig {
    /// Reads a config. Its indexes are not looked at: [`Imported`](crate::Imported) does that.
    ///
    /// # Errors
    /// `TooLarge` for more bytes than [`limit::CONFIG_BYTES`]; `Invalid` if it is no such JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        check_limit("bytes of config", bytes.len(), limit::CONFIG_BYTES)?;
        serde_json::from_slice(bytes).map_err(|error| {
            Error::invalid(format!("the cache config is not well-formed: {error}"))
        })
    }

    /// Returns the JSON.
    pub fn to_json(&self) -> Vec<u8> {
        go_json(self)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Reads `null` as the empty list, as Go's decoder does.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads an empty text as no digest.
fn optional_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    Digest::try_from(text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

/// Times as Go writes them: RFC 3339, without trailing zeros, and never left out.
mod go_time {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    /// Go's zero time.
    const ZERO: &str = "0001-01-01T00:00:00Z";

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(time),
            None => serializer.serialize_str(ZERO),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        match text.as_deref() {
            None | Some(ZERO) => Ok(None),
            Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
        }
    }
}
