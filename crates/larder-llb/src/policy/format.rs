//! The file format: JSON, as BuildKit's clients read it.
//!
//! Keys that there are not are refused, where BuildKit passes over them: a rule that says less than
//! its author meant is no rule.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;

use super::selector::{Constraint, MatchType, Selector, Wanted, regex};
use super::{Action, Rule, Updates};

/// A file that is no source policy: `FILE:LINE: KEY: …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {key}{message}")]
pub struct PolicyFileError {
    file: String,
    line: usize,
    /// Followed by a colon, unless it is empty.
    key: String,
    message: String,
}

/// Reads the rules.
pub(super) fn read(bytes: &[u8], file: &str) -> Result<Vec<Rule>, PolicyFileError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read: Result<Object<PolicyFormat>, _> = serde_path_to_error::deserialize(&mut json);
    let failed = |key: String, error: &serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        let message = error.to_string();
        let place = format!(" at line {line} column {column}");
        PolicyFileError {
            file: file.to_owned(),
            line: line_of(error, bytes),
            key,
            message: message.strip_suffix(&place).unwrap_or(&message).to_owned(),
        }
    };
    let Object(policy) = read.map_err(|error| {
        let key = error.path().to_string();
        let has_key = key != "." && error.inner().classify() == Category::Data;
        let key = if has_key {
            format!("{key}: ")
        } else {
            String::new()
        };
        failed(key, error.inner())
    })?;
    json.end().map_err(|error| failed(String::new(), &error))?;
    Ok(policy.rules)
}

/// Returns the line of an error. What is found out about a whole object is placed behind it, and
/// what is between.
fn line_of(error: &serde_json::Error, bytes: &[u8]) -> usize {
    if error.classify() != Category::Data {
        return error.line();
    }
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line() - 1).map(<[u8]>::len).sum();
    let read = &bytes[..bytes.len().min(before + error.column())];
    let read = read.trim_ascii_end();
    let object = match read {
        [object @ .., b',' | b']' | b'}'] => object.trim_ascii_end(),
        value => value,
    };
    object.split(|byte| *byte == b'\n').count()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFormat {
    /// BuildKit has one version, and does not look at it.
    #[serde(default, rename = "version")]
    _version: i64,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFormat {
    #[serde(default)]
    action: ActionName,
    selector: Selector,
    updates: Option<Object<UpdatesFormat>>,
}

#[derive(Clone, Copy, Default)]
enum ActionName {
    #[default]
    Allow,
    Deny,
    Convert,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorFormat {
    #[serde(default)]
    identifier: String,
    // Both are names of the field: that of its type, and that of its JSON.
    #[serde(default, rename = "matchType", alias = "match_type")]
    match_type: MatchType,
    #[serde(default)]
    constraints: Vec<Constraint>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ConstraintFormat {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    condition: Condition,
}

#[derive(Clone, Copy, Default)]
enum Condition {
    #[default]
    Equal,
    NotEqual,
    Matches,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdatesFormat {
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(rule) = Object::<RuleFormat>::deserialize(deserializer)?;
        let action = match rule.action {
            ActionName::Allow => Action::Allow,
            ActionName::Deny => Action::Deny,
            ActionName::Convert => {
                let missing = || de::Error::custom("a rule that converts needs `updates`");
                let Object(updates) = rule.updates.ok_or_else(missing)?;
                Action::Convert(Updates {
                    identifier: Some(updates.identifier).filter(|text| !text.is_empty()),
                    attrs: updates.attrs,
                })
            }
        };
        Ok(Self {
            selector: rule.selector,
            action,
        })
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(selector) = Object::<SelectorFormat>::deserialize(deserializer)?;
        let SelectorFormat {
            identifier,
            match_type,
            constraints,
        } = selector;
        Self::new(identifier, match_type, constraints).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(constraint) = Object::<ConstraintFormat>::deserialize(deserializer)?;
        let ConstraintFormat {
            key,
            value,
            condition,
        } = constraint;
        let wanted = match condition {
            Condition::Equal => Wanted::Equal(value),
            Condition::NotEqual => Wanted::NotEqual(value),
            Condition::Matches => Wanted::Matches(regex(&value).map_err(de::Error::custom)?),
        };
        Ok(Self { key, wanted })
    }
}

impl<'de> Deserialize<'de> for ActionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = [
            ("ALLOW", Self::Allow),
            ("DENY", Self::Deny),
            ("CONVERT", Self::Convert),
        ];
        deserializer.deserialize_any(Names(names))
    }
}

impl<'de> Deserialize<'de> for MatchType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = [
            ("WILDCARD", Self::Wildcard),
            ("EXACT", Self::Exact),
            ("REGEX", Self::Regex),
        ];
        deserializer.deserialize_any(Names(names))
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = [
            ("EQUAL", Self::Equal),
            ("NOTEQUAL", Self::NotEqual),
            ("MATCHES", Self::Matches),
        ];
        deserializer.deserialize_any(Names(names))
    }
}

/// What is read from an object only. By itself, a type that is derived takes a list of its fields,
/// too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads a value of an enumeration: its name, or its number.
struct Names<T>([(&'static str, T); 3]);

impl<T: Copy> Visitor<'_> for Names<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(first, _), (second, _), (third, _)] = &self.0;
        write!(f, "`{first}`, `{second}` or `{third}`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let found = self.0.iter().find(|(name, _)| *name == text);
        let found = found.map(|(_, value)| *value);
        found.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        let index = usize::try_from(number).ok();
        let found = index.and_then(|index| self.0.get(index));
        let found = found.map(|(_, value)| *value);
        found.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }
}
