//! Comma-separated fields, as flags and bake attributes hold them (RFC 4180).

use crate::error::Error;

/// Splits one line. A field in quotes may hold commas, and quotes as two.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, Error> {
    Ok(records(line)?.into_iter().next().unwrap_or_default())
}

/// Splits lines; empty ones are left out.
pub(crate) fn records(text: &str) -> Result<Vec<Vec<String>>, Error> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (field, after) = field(rest)?;
        record.push(field);
        match after.strip_prefix(',') {
            Some("") => {
                record.push(String::new());
                rest = "";
            }
            Some(next) => {
                rest = next;
                continue;
            }
            None => {
                let line_end = after.strip_prefix("\r\n").or(after.strip_prefix('\n'));
                rest = line_end.unwrap_or(after);
            }
        }
        let done = std::mem::take(&mut record);
        if done != [""] {
            records.push(done);
        }
    }
    Ok(records)
}

/// Takes a field off the beginning. What remains begins with a comma or a line break, or is empty.
fn field(text: &str) -> Result<(String, &str), Error> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        let end = if text[end..].starts_with('\n') && text[..end].ends_with('\r') {
            end - 1
        } else {
            end
        };
        if text[..end].contains('"') {
            return Err(Error::request("bare `\"` in a field without quotes"));
        }
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut field = String::new();
    loop {
        let quote = rest
            .find('"')
            .ok_or_else(|| Error::request("a field in quotes does not end"))?;
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if rest.is_empty() || rest.starts_with([',', '\n', '\r']) => {
                return Ok((field, rest));
            }
            None => return Err(Error::request("text follows the end of a field in quotes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_commas_outside_of_quotes() {
        for (line, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a,b=c", &["a", "b=c"]),
            ("a,", &["a", ""]),
            (",", &["", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for line in ["\"a", "\"a\"b", "a\"b"] {
            assert!(fields(line).is_err(), "{line}");
        }
    }

    #[test]
    fn records_are_lines() {
        let records = records("a,b\r\n1,2\n\n\"x\ny\",").unwrap();
        assert_eq!(records, [vec!["a", "b"], vec!["1", "2"], vec!["x\ny", ""]]);
    }
}
