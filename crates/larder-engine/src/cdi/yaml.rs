//! From YAML text to the values of JSON, of which it says the same.

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Number, Value};

/// The deepest nesting; what keeps trees from overflowing the stack.
const MAX_DEPTH: usize = 64;

/// Parses the first document of a text. Aliases are refused: nothing then grows beyond the text.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
    };
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(Value::Null),
            Event::DocumentStart(_) => {
                let first = reader.next()?;
                return reader.value(first, 0);
            }
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.parser.next() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(format!("no valid YAML: {error}")),
            None => Ok(Event::StreamEnd),
        }
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => Ok(plain(&text)),
            Event::Scalar(text, ..) => Ok(Value::String(text.into_owned())),
            Event::SequenceStart(..) => {
                let mut values = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => return Ok(Value::Array(values)),
                        event => values.push(self.value(event, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut map = Map::new();
                loop {
                    let key = match self.next()? {
                        Event::MappingEnd => return Ok(Value::Object(map)),
                        Event::Scalar(text, ..) => text.into_owned(),
                        _ => return Err("a key is no text".to_owned()),
                    };
                    let event = self.next()?;
                    map.insert(key, self.value(event, depth + 1)?);
                }
            }
            Event::Alias(_) => Err("aliases are not supported".to_owned()),
            _ => Err("it ends in the middle".to_owned()),
        }
    }
}

/// Returns what a text without quotes means.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let octal = text.strip_prefix("0o").map(|digits| (digits, 8));
    let hexadecimal = || text.strip_prefix("0x").map(|digits| (digits, 16));
    // YAML 1.1, which those who write these files go by.
    let old_octal = || {
        let digits = text.strip_prefix('0')?;
        (!digits.is_empty()).then_some((digits, 8))
    };
    let based = octal.or_else(hexadecimal).or_else(old_octal);
    let based = based.and_then(|(digits, radix)| u64::from_str_radix(digits, radix).ok());
    if let Some(number) = based.or_else(|| text.parse().ok()) {
        return Value::Number(number.into());
    }
    let number = text.parse::<i64>().ok().map(Number::from);
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_json() {
        let text =
            "a: [1, 0660, 0o17, 0x1f, -2, 1.5.0, ~, 'yes', \"1\"]\nb:\n  c: true\n  d: |\n    x\n";
        assert_eq!(
            parse(text).unwrap(),
            serde_json::json!({
                "a": [1, 432, 15, 31, -2, "1.5.0", null, "yes", "1"],
                "b": {"c": true, "d": "x\n"}
            })
        );
        for bad in ["a: &x 1\nb: *x", "{", "? [a]\n: b", &"[".repeat(100)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("").unwrap(), Value::Null);
    }
}
