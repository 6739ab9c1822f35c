//! `format`: verbs as in C's `printf`, of which HCL has its own choice.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use unicode_segmentation::UnicodeSegmentation as _;

use super::Done;
use crate::error::Error;
use crate::print::escape_html;
use crate::value::Value;

/// Wider fields are a mistake.
const MAX_WIDTH: usize = 1024;

/// What stands between `%` and the letter of a verb.
#[derive(Debug, Default)]
struct Verb {
    has_plus: bool,
    has_space: bool,
    is_left_aligned: bool,
    has_zeros: bool,
    has_hash: bool,
    width: usize,
    precision: Option<usize>,
}

/// `format(format, values…)`
pub(super) fn format(args: &[Value]) -> Done {
    let Some((format, values)) = args.split_first() else {
        return Err(Error::definition("a format is required"));
    };
    render(&format.to_text()?, values).map(Value::String)
}

/// `formatlist(format, values…)`: lists are gone through in step, other values stay.
pub(super) fn format_list(args: &[Value]) -> Done {
    let Some((format, values)) = args.split_first() else {
        return Err(Error::definition("a format is required"));
    };
    let format = format.to_text()?;
    let lists = values
        .iter()
        .filter(|value| matches!(value, Value::List(_) | Value::Set(_)));
    let lengths: Vec<usize> = lists
        .map(|list| Ok(list.elements()?.len()))
        .collect::<Result<_, Error>>()?;
    let count = lengths.first().copied().unwrap_or(1);
    if lengths.iter().any(|length| *length != count) {
        return Err(Error::definition("the lists are not of the same length"));
    }
    let row = |index: usize| {
        let value = |value: &Value| {
            value
                .elements()
                .map_or(value.clone(), |list| list[index].clone())
        };
        render(&format, &values.iter().map(value).collect::<Vec<_>>()).map(Value::String)
    };
    (0..count)
        .map(row)
        .collect::<Result<_, _>>()
        .map(Value::List)
}

fn render(format: &str, values: &[Value]) -> Result<String, Error> {
    let mut rendered = String::new();
    let mut rest = format;
    let (mut next, mut used) = (0, 0);
    while let Some(percent) = rest.find('%') {
        rendered.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rendered.push('%');
            rest = after;
            continue;
        }
        let (verb, index, after) = parse(rest)?;
        let letter = after
            .chars()
            .next()
            .ok_or_else(|| Error::definition("the format ends within a verb"))?;
        rest = &after[letter.len_utf8()..];
        let at = index.unwrap_or(next);
        let value = values.get(at).ok_or_else(|| {
            Error::definition(format!(
                "the format asks for {} values, not {}",
                at + 1,
                values.len()
            ))
        })?;
        next = at + 1;
        used = used.max(next);
        rendered.push_str(&verb.format(letter, value)?);
    }
    if used < values.len() {
        return Err(Error::definition(format!(
            "the format asks for {used} values, not {}",
            values.len()
        )));
    }
    rendered.push_str(rest);
    Ok(rendered)
}

/// Reads flags, the index of a value, width and precision.
fn parse(text: &str) -> Result<(Verb, Option<usize>, &str), Error> {
    let mut verb = Verb::default();
    let mut rest = text;
    while let Some(flag) = rest
        .chars()
        .next()
        .filter(|letter| "+- #0".contains(*letter))
    {
        match flag {
            '+' => verb.has_plus = true,
            '-' => verb.is_left_aligned = true,
            ' ' => verb.has_space = true,
            '#' => verb.has_hash = true,
            _ => verb.has_zeros = true,
        }
        rest = &rest[1..];
    }
    let (width, after) = number(rest)?;
    verb.width = width.unwrap_or(0);
    rest = after;
    if let Some(after) = rest.strip_prefix('.') {
        let (precision, after) = number(after)?;
        verb.precision = Some(precision.unwrap_or(0));
        rest = after;
    }
    let mut index = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (given, after) = number(after)?;
        let after = after.strip_prefix(']');
        let (given, after) = given
            .filter(|given| *given > 0)
            .zip(after)
            .ok_or_else(|| Error::definition("the format has a malformed index"))?;
        index = Some(given - 1);
        rest = after;
    }
    Ok((verb, index, rest))
}

fn number(text: &str) -> Result<(Option<usize>, &str), Error> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    if end == 0 {
        return Ok((None, text));
    }
    let number = text[..end]
        .parse()
        .ok()
        .filter(|number| *number <= MAX_WIDTH);
    let number =
        number.ok_or_else(|| Error::definition("a number in the format is larger than 1024"))?;
    Ok((Some(number), &text[end..]))
}

impl Verb {
    fn format(&self, letter: char, value: &Value) -> Result<String, Error> {
        match letter {
            'v' if self.has_hash => Ok(self.pad(json(value), false)),
            'v' => match value {
                Value::Null => Ok(self.pad("null".to_owned(), false)),
                Value::Number(number) => {
                    Ok(self.signed(number, &number.abs().normalize().to_string()))
                }
                Value::String(_) | Value::Bool(_) => Ok(self.pad(value.to_text()?, false)),
                other => Ok(self.pad(json(other), false)),
            },
            't' => Ok(self.pad(value.to_bool()?.to_string(), false)),
            'b' | 'd' | 'o' | 'x' | 'X' => self.integer(letter, value.to_number()?),
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => self.float(letter, value.to_number()?),
            's' => Ok(self.pad(self.cut(value.to_text()?), false)),
            'q' => Ok(self.pad(json(&Value::String(self.cut(value.to_text()?))), false)),
            other => Err(Error::definition(format!(
                "`%{other}` is no verb of a format"
            ))),
        }
    }

    fn integer(&self, letter: char, number: Decimal) -> Result<String, Error> {
        if !number.fract().is_zero() {
            return Err(Error::definition(format!(
                "`%{letter}` takes a whole number, not {number}"
            )));
        }
        let whole = number
            .abs()
            .to_u128()
            .ok_or_else(|| Error::definition("the number is out of range"))?;
        let digits = match letter {
            'b' => format!("{whole:b}"),
            'o' => format!("{whole:o}"),
            'x' => format!("{whole:x}"),
            'X' => format!("{whole:X}"),
            _ => whole.to_string(),
        };
        Ok(self.signed(&number, &digits))
    }

    fn float(&self, letter: char, number: Decimal) -> Result<String, Error> {
        let magnitude = number
            .abs()
            .to_f64()
            .ok_or_else(|| Error::definition("the number is out of range"))?;
        let digits = match letter {
            'f' | 'F' => format!("{magnitude:.*}", self.precision.unwrap_or(6)),
            'e' | 'E' => scientific(&format!("{magnitude:.*e}", self.precision.unwrap_or(6))),
            _ => number.abs().normalize().to_string(),
        };
        let digits = if letter.is_ascii_uppercase() {
            digits.to_uppercase()
        } else {
            digits
        };
        Ok(self.signed(&number, &digits))
    }

    fn signed(&self, number: &Decimal, digits: &str) -> String {
        let sign = match (
            number.is_sign_negative() && !number.is_zero(),
            self.has_plus,
            self.has_space,
        ) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        };
        if self.has_zeros && !self.is_left_aligned {
            let width = self.width.saturating_sub(sign.len());
            return format!("{sign}{digits:0>width$}");
        }
        self.pad(format!("{sign}{digits}"), true)
    }

    fn cut(&self, text: String) -> String {
        match self.precision {
            Some(precision) => text.graphemes(true).take(precision).collect(),
            None => text,
        }
    }

    fn pad(&self, text: String, is_number: bool) -> String {
        let missing = self.width.saturating_sub(text.graphemes(true).count());
        let pad = if self.has_zeros && !is_number && !self.is_left_aligned {
            "0"
        } else {
            " "
        };
        if self.is_left_aligned {
            text + &" ".repeat(missing)
        } else {
            pad.repeat(missing) + &text
        }
    }
}

fn json(value: &Value) -> String {
    escape_html(&value.to_json().to_string())
}

/// Writes the exponent as C does: a sign, and two digits at least.
fn scientific(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}
