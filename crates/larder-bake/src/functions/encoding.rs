//! JSON, CSV, Base64 and URLs.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Done, exactly};
use crate::csv;
use crate::error::Error;
use crate::print::escape_html;
use crate::value::Value;

pub(super) fn json_encode(args: &[Value]) -> Done {
    let [value] = exactly(args)?;
    Ok(Value::String(escape_html(&value.to_json().to_string())))
}

pub(super) fn json_decode(args: &[Value]) -> Done {
    let [text] = exactly(args)?;
    let json = serde_json::from_str(&text.to_text()?)
        .map_err(|error| Error::definition(format!("invalid JSON: {error}")))?;
    Value::from_json(&json)
}

/// The first row names the columns; each other row is an object.
pub(super) fn csv_decode(args: &[Value]) -> Done {
    let [text] = exactly(args)?;
    let mut rows = csv::records(&text.to_text()?)?.into_iter();
    let header = rows
        .next()
        .ok_or_else(|| Error::definition("missing header line"))?;
    for (index, name) in header.iter().enumerate() {
        if header[..index].contains(name) {
            return Err(Error::definition(format!("duplicate column name `{name}`")));
        }
    }
    let objects = rows.map(|row| {
        if row.len() != header.len() {
            return Err(Error::definition(format!(
                "a row has {} fields, the header {}",
                row.len(),
                header.len()
            )));
        }
        let entries = header
            .iter()
            .cloned()
            .zip(row.into_iter().map(Value::String));
        Ok(Value::Object(entries.collect()))
    });
    objects.collect::<Result<_, _>>().map(Value::List)
}

pub(super) fn base64_encode(args: &[Value]) -> Done {
    let [text] = exactly(args)?;
    Ok(Value::String(STANDARD.encode(text.to_text()?)))
}

pub(super) fn base64_decode(args: &[Value]) -> Done {
    let [text] = exactly(args)?;
    let bytes = STANDARD
        .decode(text.to_text()?)
        .map_err(|error| Error::definition(format!("invalid Base64: {error}")))?;
    String::from_utf8(bytes)
        .map(Value::String)
        .map_err(|_| Error::definition("the decoded bytes are not UTF-8"))
}

/// Escapes for the query of a URL: a space is `+`.
pub(super) fn url_encode(args: &[Value]) -> Done {
    let [text] = exactly(args)?;
    let mut encoded = String::new();
    for byte in text.to_text()?.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => write!(encoded, "%{byte:02X}").expect("a String takes all"),
        }
    }
    Ok(Value::String(encoded))
}
