use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use regex::Regex;

use crate::{Error, Result, SnapshotId, UsageRecord};

/// Which records are meant: conditions joined by commas, all of which hold.
///
/// | field | |
/// | --- | --- |
/// | `id`, `parents`, `description`, `type` | text: `=` (of an `id`, a part of it), `==`, `!=`, `~=` (regular expression) |
/// | `inuse`, `mutable`, `immutable`, `shared`, `private` | alone, or with `=true` or `=false` |
/// | `until`, `unused-for` | not used for that long, `24h` or `1h30m` |
///
/// Displays as it was written.
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    conditions: Vec<Condition>,
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Debug, Clone)]
enum Condition {
    Text(TextField, TextTest),
    Flag(FlagField, bool),
    UnusedFor(SignedDuration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextField {
    Id,
    Parents,
    Description,
    Type,
}

#[derive(Debug, Clone)]
enum TextTest {
    Present,
    Contains(String),
    Equals(String),
    Differs(String),
    Matches(Regex),
}

#[derive(Debug, Clone, Copy)]
enum FlagField {
    InUse,
    Mutable,
    Shared,
}

impl Filter {
    /// Returns whether all conditions hold for `record` at the time `now`.
    pub fn matches(&self, record: &UsageRecord, now: Timestamp) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Text(field, test) => test.holds(&field.of(record)),
            Condition::Flag(field, wanted) => field.of(record) == *wanted,
            Condition::UnusedFor(age) => now.duration_since(record.last_touched_at()) >= *age,
        })
    }

    /// Returns whether a condition asks for records of the type `name`, or for a record by its id.
    pub(crate) fn asks_for(&self, name: &str) -> bool {
        self.conditions.iter().any(|condition| match condition {
            Condition::Text(
                TextField::Type | TextField::Id,
                TextTest::Differs(_) | TextTest::Present,
            ) => false,
            Condition::Text(TextField::Id, _) => true,
            Condition::Text(TextField::Type, test) => test.holds(name),
            _ => false,
        })
    }
}

impl TextField {
    fn of(self, record: &UsageRecord) -> String {
        match self {
            Self::Id => record.id.to_string(),
            Self::Parents => {
                let parents: Vec<_> = record.parents.iter().map(SnapshotId::as_str).collect();
                parents.join(";")
            }
            Self::Description => record.description.clone(),
            Self::Type => record.record_type.to_string(),
        }
    }
}

impl TextTest {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::Equals(whole) => text == whole,
            Self::Differs(whole) => text != whole,
            Self::Matches(pattern) => pattern.is_match(text),
        }
    }
}

impl FlagField {
    fn of(self, record: &UsageRecord) -> bool {
        match self {
            Self::InUse => record.in_use,
            Self::Mutable => record.mutable,
            Self::Shared => record.shared,
        }
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let conditions = split(text)?;
        let conditions: Result<_> = conditions.iter().map(|part| condition(part)).collect();
        Ok(Self {
            text: text.to_owned(),
            conditions: conditions?,
        })
    }
}

/// Splits at the commas that are not within double quotes.
fn split(text: &str) -> Result<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let last = parts.len() - 1;
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => parts[last].extend(characters.next()),
            ',' if !quoted => parts.push(String::new()),
            _ => parts[last].push(c),
        }
    }
    if quoted {
        return Err(bad(text, "a quotation mark is not closed"));
    }
    Ok(parts)
}

fn condition(text: &str) -> Result<Condition> {
    let text = text.trim();
    let end = text.find(['=', '!', '~']).unwrap_or(text.len());
    let (field, rest) = text.split_at(end);
    let operators = ["==", "!=", "~=", "="];
    let operator = operators
        .into_iter()
        .find(|operator| rest.starts_with(operator));
    let value = &rest[operator.map_or(0, str::len)..];
    if operator.is_none() && !rest.is_empty() {
        return Err(bad(text, "the operators are `=`, `==`, `!=` and `~=`"));
    }
    let text_field = |field| {
        Ok(Condition::Text(
            field,
            match operator {
                None => TextTest::Present,
                Some("=") if field == TextField::Id => TextTest::Contains(value.to_owned()),
                Some("!=") => TextTest::Differs(value.to_owned()),
                Some("~=") => {
                    TextTest::Matches(Regex::new(value).map_err(|error| bad(text, error))?)
                }
                Some(_) => TextTest::Equals(value.to_owned()),
            },
        ))
    };
    let flag = |field, wanted: bool| match (operator, value) {
        (None, _) | (Some("=" | "=="), "true") | (Some("!="), "false") => {
            Ok(Condition::Flag(field, wanted))
        }
        (Some("=" | "=="), "false") | (Some("!="), "true") => Ok(Condition::Flag(field, !wanted)),
        _ => Err(bad(text, "expected `true` or `false`")),
    };
    match field.trim() {
        "id" => text_field(TextField::Id),
        "parents" | "parent" => text_field(TextField::Parents),
        "description" => text_field(TextField::Description),
        "type" => text_field(TextField::Type),
        "inuse" => flag(FlagField::InUse, true),
        "mutable" => flag(FlagField::Mutable, true),
        "immutable" => flag(FlagField::Mutable, false),
        "shared" => flag(FlagField::Shared, true),
        "private" => flag(FlagField::Shared, false),
        "until" | "unused-for" => value
            .parse()
            .map(Condition::UnusedFor)
            .map_err(|_| bad(text, "expected a duration such as `24h` or `1h30m`")),
        _ => Err(bad(
            text,
            "the fields are `id`, `parents`, `description`, `type`, `inuse`, `mutable`, \
             `immutable`, `shared`, `private`, `until` and `unused-for`",
        )),
    }
}

fn bad(text: &str, reason: impl fmt::Display) -> Error {
    Error::invalid(format_args!("invalid filter `{text}`: {reason}"))
}
