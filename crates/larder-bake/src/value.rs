//! Values of expressions.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use rust_decimal::Decimal;

use crate::error::Error;

/// What an expression can come to. HCL's tuples are lists here, its maps objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Decimal),
    String(String),
    List(Vec<Value>),
    Set(BTreeSet<Value>),
    Object(BTreeMap<String, Value>),
}

/// Parses a decimal number, with an exponent or not; `None` if it is none, or out of range.
pub(crate) fn parse_number(text: &str) -> Option<Decimal> {
    let number = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str(text)
    };
    number.ok().map(|number| number.normalize())
}

/// Parses a boolean as environment variables and overrides hold them.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn texts(texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    pub(crate) fn integer(number: impl Into<Decimal>) -> Self {
        Self::Number(number.into())
    }

    /// Returns what its type is called in messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Object(_) => "object",
        }
    }

    /// Converts a primitive value to a string.
    pub(crate) fn to_text(&self) -> Result<String, Error> {
        match self {
            Self::String(text) => Ok(text.clone()),
            Self::Bool(value) => Ok(value.to_string()),
            Self::Number(number) => Ok(number.normalize().to_string()),
            other => Err(other.mismatch("string")),
        }
    }

    /// Converts to a number, from a string too.
    pub(crate) fn to_number(&self) -> Result<Decimal, Error> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::String(text) => {
                parse_number(text).ok_or_else(|| Error::definition("a number is required"))
            }
            other => Err(other.mismatch("number")),
        }
    }

    /// Converts to a boolean, from the strings `true` and `false` too.
    pub(crate) fn to_bool(&self) -> Result<bool, Error> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::String(text) if text == "true" => Ok(true),
            Self::String(text) if text == "false" => Ok(false),
            other => Err(other.mismatch("bool")),
        }
    }

    /// Converts to a whole number of `usize`.
    pub(crate) fn to_index(&self) -> Result<usize, Error> {
        let number = self.to_number()?;
        whole(number)
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| Error::definition("a whole number that is not negative is required"))
    }

    /// Converts to a whole number.
    pub(crate) fn to_whole(&self) -> Result<i64, Error> {
        whole(self.to_number()?).ok_or_else(|| Error::definition("a whole number is required"))
    }

    /// Returns the elements of a list or set.
    pub(crate) fn elements(&self) -> Result<Vec<Value>, Error> {
        match self {
            Self::List(elements) => Ok(elements.clone()),
            Self::Set(elements) => Ok(elements.iter().cloned().collect()),
            other => Err(other.mismatch("list")),
        }
    }

    /// Returns the entries of an object.
    pub(crate) fn entries(&self) -> Result<&BTreeMap<String, Value>, Error> {
        match self {
            Self::Object(entries) => Ok(entries),
            other => Err(other.mismatch("object")),
        }
    }

    /// Returns keys and values to iterate over; `None` if there is nothing to iterate over.
    pub(crate) fn pairs(&self) -> Option<Vec<(Value, Value)>> {
        Some(match self {
            Self::List(elements) => elements
                .iter()
                .enumerate()
                .map(|(index, element)| (Self::integer(index as u64), element.clone()))
                .collect(),
            Self::Set(elements) => elements
                .iter()
                .map(|element| (element.clone(), element.clone()))
                .collect(),
            Self::Object(entries) => entries
                .iter()
                .map(|(key, value)| (Self::text(key), value.clone()))
                .collect(),
            _ => return None,
        })
    }

    /// Returns the value as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(number) => {
                let text = number.normalize().to_string();
                serde_json::from_str(&text).unwrap_or(Json::String(text))
            }
            Self::String(text) => Json::String(text.clone()),
            Self::List(elements) => elements.iter().map(Self::to_json).collect(),
            Self::Set(elements) => elements.iter().map(Self::to_json).collect(),
            Self::Object(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// Reads JSON.
    pub(crate) fn from_json(json: &serde_json::Value) -> Result<Self, Error> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => {
                let text = number.to_string();
                let number = parse_number(&text).ok_or_else(|| {
                    Error::definition(format!("`{text}` is out of the range of numbers"))
                })?;
                Self::Number(number)
            }
            Json::String(text) => Self::String(text.clone()),
            Json::Array(elements) => Self::List(
                elements
                    .iter()
                    .map(Self::from_json)
                    .collect::<Result<_, _>>()?,
            ),
            Json::Object(entries) => Self::Object(
                entries
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), Self::from_json(value)?)))
                    .collect::<Result<_, Error>>()?,
            ),
        })
    }

    /// Says that another type is required.
    pub(crate) fn mismatch(&self, required: &str) -> Error {
        let article = if required.starts_with('o') { "an" } else { "a" };
        Error::definition(match self {
            Self::Null => format!("{article} {required} is required, and the value is null"),
            other => format!(
                "{article} {required} is required, not a {}",
                other.type_name()
            ),
        })
    }
}

fn whole(number: Decimal) -> Option<i64> {
    use rust_decimal::prelude::ToPrimitive as _;
    number.is_integer().then(|| number.to_i64()).flatten()
}
