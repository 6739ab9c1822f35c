//! Attributes that are structures: cache sources and destinations, outputs, secrets, …

use std::collections::BTreeMap;

use crate::csv;
use crate::error::Error;
use crate::value::{Value, parse_bool};

/// Where cache records come from or go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`, …
    pub kind: String,
    /// All other attributes.
    pub attributes: BTreeMap<String, String>,
}

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputEntry {
    /// `image`, `docker`, `local`, …
    pub kind: String,
    /// A path, or `-`; empty if there is none.
    pub destination: String,
    /// All other attributes.
    pub attributes: BTreeMap<String, String>,
}

/// A secret and where it comes from; empty strings stand for what is not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretEntry {
    /// Its name.
    pub id: String,
    /// A file.
    pub file: String,
    /// A variable of the environment.
    pub variable: String,
}

/// An SSH agent, or keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SshEntry {
    /// Its name.
    pub id: String,
    /// Sockets or keys.
    pub paths: Vec<String>,
}

/// An attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestEntry {
    /// `provenance` or `sbom`.
    pub kind: String,
    /// Whether it is declined.
    pub is_disabled: bool,
    /// All other attributes.
    pub attributes: BTreeMap<String, String>,
}

/// An element of a list that is written as text or as an object.
pub(crate) trait Entry: Sized + PartialEq {
    /// Reads the form of flags; a text may stand for several.
    fn parse_all(text: &str) -> Result<Vec<Self>, Error>;
    /// Reads an object.
    fn from_object(entries: &BTreeMap<String, Value>) -> Result<Self, Error>;
    /// Returns what references to it see.
    fn to_value(&self) -> Value;
    /// Returns it as printed.
    fn to_json(&self) -> serde_json::Value;
}

/// Reads the elements of a list; empty texts are left out.
pub(crate) fn read_list<E: Entry>(value: &Value) -> Result<Vec<E>, Error> {
    let mut entries = Vec::new();
    for element in value.elements()? {
        match &element {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => entries.extend(E::parse_all(text)?),
            Value::Object(object) => entries.push(E::from_object(object)?),
            other => return Err(other.mismatch("string")),
        }
    }
    Ok(entries)
}

/// Reads texts in the form of flags.
pub(crate) fn parse_list<E: Entry>(texts: &[String]) -> Result<Vec<E>, Error> {
    let mut entries = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        entries.extend(E::parse_all(text)?);
    }
    Ok(entries)
}

/// Removes what equals an earlier element. As with buildx, the last element takes the place of
/// each one removed, so the order may change.
pub(crate) fn remove_duplicates<E: PartialEq>(entries: &mut Vec<E>) {
    for index in (0..entries.len().saturating_sub(1)).rev() {
        let duplicate = (index + 1..entries.len()).find(|other| entries[index] == entries[*other]);
        if let Some(duplicate) = duplicate {
            entries.swap_remove(duplicate);
        }
    }
}

/// Splits `key=value` fields; keys are lower-cased.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Error> {
    csv::fields(text)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
            None => Err(Error::definition(format!(
                "invalid value `{field}`, expected `key=value`"
            ))),
        })
        .collect()
}

fn texts(entries: &BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, Error> {
    entries
        .iter()
        .filter(|(_, value)| **value != Value::Null)
        .map(|(key, value)| {
            let text = value.to_text().map_err(|error| error.in_key(key))?;
            Ok((key.clone(), text))
        })
        .collect()
}

fn take_kind(attributes: &mut BTreeMap<String, String>) -> Result<String, Error> {
    attributes
        .remove("type")
        .filter(|kind| !kind.is_empty())
        .ok_or_else(|| Error::definition("`type` is required"))
}

fn object(attributes: &BTreeMap<String, String>, further: &[(&str, &str)]) -> Value {
    let further = further.iter().map(|&(key, value)| (key, value));
    let attributes = attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    Value::Object(
        attributes
            .chain(further)
            .map(|(key, value)| (key.to_owned(), Value::text(value)))
            .collect(),
    )
}

impl CacheEntry {
    /// Parses the form of `--cache-from`; a plain list of image names is one entry each.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Vec<Self>, Error> {
        if !text.contains('=') {
            let names = csv::fields(text)?;
            return Ok(names
                .into_iter()
                .map(|name| Self {
                    kind: "registry".to_owned(),
                    attributes: BTreeMap::from([("ref".to_owned(), name)]),
                })
                .collect());
        }
        let mut attributes = pairs(text)?.into_iter().collect();
        Ok(vec![Self {
            kind: take_kind(&mut attributes)?,
            attributes,
        }])
    }

    /// Returns the form of `--cache-from`.
    pub fn to_flag(&self) -> String {
        flag(&[("type", &self.kind)], &self.attributes)
    }
}

impl Entry for CacheEntry {
    fn parse_all(text: &str) -> Result<Vec<Self>, Error> {
        Self::parse(text)
    }

    fn from_object(entries: &BTreeMap<String, Value>) -> Result<Self, Error> {
        let mut attributes = texts(entries)?;
        Ok(Self {
            kind: take_kind(&mut attributes)?,
            attributes,
        })
    }

    fn to_value(&self) -> Value {
        object(&self.attributes, &[("type", &self.kind)])
    }

    fn to_json(&self) -> serde_json::Value {
        self.to_value().to_json()
    }
}

impl OutputEntry {
    /// Returns the output that keeps a result in the cache only.
    pub fn cache_only() -> Self {
        Self {
            kind: "cacheonly".to_owned(),
            destination: String::new(),
            attributes: BTreeMap::new(),
        }
    }

    /// Parses the form of `--output`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fields = csv::fields(text)?;
        if let [single] = fields.as_slice()
            && single == text
            && !text.starts_with("type=")
        {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(Self {
                kind: kind.to_owned(),
                destination: text.to_owned(),
                attributes: BTreeMap::new(),
            });
        }
        Self::from_attributes(pairs(text)?.into_iter().collect())
    }

    fn from_attributes(mut attributes: BTreeMap<String, String>) -> Result<Self, Error> {
        Ok(Self {
            kind: take_kind(&mut attributes)?,
            destination: attributes.remove("dest").unwrap_or_default(),
            attributes,
        })
    }

    /// Returns the form of `--output`.
    pub fn to_flag(&self) -> String {
        let dest = ("dest", self.destination.as_str());
        let head: &[(&str, &str)] = &[("type", &self.kind), dest];
        let head = if self.destination.is_empty() {
            &head[..1]
        } else {
            head
        };
        flag(head, &self.attributes)
    }
}

impl Entry for OutputEntry {
    fn parse_all(text: &str) -> Result<Vec<Self>, Error> {
        Ok(vec![Self::parse(text)?])
    }

    fn from_object(entries: &BTreeMap<String, Value>) -> Result<Self, Error> {
        Self::from_attributes(texts(entries)?)
    }

    fn to_value(&self) -> Value {
        object(
            &self.attributes,
            &[("type", &self.kind), ("dest", &self.destination)],
        )
    }

    fn to_json(&self) -> serde_json::Value {
        let dest = ("dest", self.destination.as_str());
        let further: &[(&str, &str)] = &[("type", &self.kind), dest];
        let count = if self.destination.is_empty() { 1 } else { 2 };
        object(&self.attributes, &further[..count]).to_json()
    }
}

impl SecretEntry {
    /// Parses the form of `--secret`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut secret = Self::default();
        let mut is_variable = false;
        for (key, value) in pairs(text)? {
            match (key.as_str(), value.as_str()) {
                ("type", "env") => is_variable = true,
                ("type", "file") => is_variable = false,
                ("type", _) => {
                    return Err(Error::definition(format!(
                        "unsupported secret type `{value}`"
                    )));
                }
                ("id", _) => secret.id = value,
                ("source" | "src", _) => secret.file = value,
                ("env", _) => secret.variable = value,
                _ => {
                    return Err(Error::definition(format!(
                        "unexpected key `{key}` in `{text}`"
                    )));
                }
            }
        }
        if is_variable && secret.variable.is_empty() {
            secret.variable = std::mem::take(&mut secret.file);
        }
        Ok(secret)
    }
}

impl Entry for SecretEntry {
    fn parse_all(text: &str) -> Result<Vec<Self>, Error> {
        Ok(vec![Self::parse(text)?])
    }

    fn from_object(entries: &BTreeMap<String, Value>) -> Result<Self, Error> {
        let mut attributes = texts(entries)?;
        let mut take = |key: &str| attributes.remove(key).unwrap_or_default();
        Ok(Self {
            id: take("id"),
            file: take("src"),
            variable: take("env"),
        })
    }

    fn to_value(&self) -> Value {
        object(
            &BTreeMap::new(),
            &[
                ("id", &self.id),
                ("src", &self.file),
                ("env", &self.variable),
            ],
        )
    }

    fn to_json(&self) -> serde_json::Value {
        let fields = [
            ("id", &self.id),
            ("src", &self.file),
            ("env", &self.variable),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        serde_json::Value::Object(
            given
                .map(|(key, value)| (key.to_owned(), value.as_str().into()))
                .collect(),
        )
    }
}

impl SshEntry {
    /// Parses the form of `--ssh`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('=') {
            None => Self {
                id: text.to_owned(),
                paths: Vec::new(),
            },
            Some((id, paths)) => Self {
                id: id.to_owned(),
                paths: paths.split(',').map(str::to_owned).collect(),
            },
        }
    }
}

impl Entry for SshEntry {
    fn parse_all(text: &str) -> Result<Vec<Self>, Error> {
        Ok(vec![Self::parse(text)])
    }

    fn from_object(entries: &BTreeMap<String, Value>) -> Result<Self, Error> {
        let text = |key: &str| entries.get(key).map_or(Ok(String::new()), Value::to_text);
        let paths = entries
            .get("paths")
            .map_or(Ok(Vec::new()), Value::elements)?;
        Ok(Self {
            id: text("id").map_err(|error| error.in_key("id"))?,
            paths: paths.iter().map(Value::to_text).collect::<Result<_, _>>()?,
        })
    }

    fn to_value(&self) -> Value {
        Value::Object(BTreeMap::from([
            ("id".to_owned(), Value::text(&self.id)),
            ("paths".to_owned(), Value::texts(&self.paths)),
        ]))
    }

    fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::Map::new();
        if !self.id.is_empty() {
            json.insert("id".to_owned(), self.id.as_str().into());
        }
        if !self.paths.is_empty() {
            json.insert("paths".to_owned(), self.paths.clone().into());
        }
        json.into()
    }
}

impl AttestEntry {
    /// Returns it as `--attest` takes it.
    pub fn to_flag(&self) -> String {
        let disabled = self.is_disabled.to_string();
        flag(
            &[("type", &self.kind), ("disabled", &disabled)],
            &self.attributes,
        )
    }

    /// Parses the form of `--attest`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::from_attributes(pairs(text)?.into_iter().collect())
    }

    fn from_attributes(mut attributes: BTreeMap<String, String>) -> Result<Self, Error> {
        let disabled = attributes
            .remove("disabled")
            .unwrap_or_else(|| "false".to_owned());
        Ok(Self {
            kind: take_kind(&mut attributes)?,
            is_disabled: parse_bool(&disabled)
                .ok_or_else(|| Error::definition(format!("invalid value `disabled={disabled}`")))?,
            attributes,
        })
    }
}

impl Entry for AttestEntry {
    fn parse_all(text: &str) -> Result<Vec<Self>, Error> {
        Ok(vec![Self::parse(text)?])
    }

    fn from_object(entries: &BTreeMap<String, Value>) -> Result<Self, Error> {
        Self::from_attributes(texts(entries)?)
    }

    fn to_value(&self) -> Value {
        let disabled = self.is_disabled.to_string();
        object(
            &self.attributes,
            &[("type", &self.kind), ("disabled", &disabled)],
        )
    }

    fn to_json(&self) -> serde_json::Value {
        let mut json = object(&self.attributes, &[("type", &self.kind)]).to_json();
        if self.is_disabled {
            json["disabled"] = true.into();
            json.sort_all_objects();
        }
        json
    }
}

/// Writes fields as a flag takes them, in quotes where they hold commas or quotes.
fn flag(head: &[(&str, &str)], attributes: &BTreeMap<String, String>) -> String {
    let attributes = attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let fields: Vec<String> = head
        .iter()
        .copied()
        .chain(attributes)
        .map(|(key, value)| {
            let field = format!("{key}={value}");
            if field.contains([',', '"', '\n']) {
                format!("\"{}\"", field.replace('"', "\"\""))
            } else {
                field
            }
        })
        .collect();
    fields.join(",")
}
