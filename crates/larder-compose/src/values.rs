//! Values that are written as text: sizes, times, commands, truth.

use std::time::Duration;

/// Parses a size: a number of bytes with an optional unit `b`, `k`, `m`, `g`, `t`, `p`, which may
/// be followed by `b` or `ib`, in any case; units are powers of 1024, as compose has it.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let power = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    Some((number * 1024_f64.powi(power)) as u64)
}

/// Parses a time, `1m30s`: numbers, each with a unit `h`, `m`, `s`, `ms`, `us` or `ns`, or `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}

/// Parses a truth value.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" | "" => Some(false),
        _ => None,
    }
}

/// Splits a command into words as a shell does: at blanks outside of quotes, with backslashes.
/// `None` if a quote is not closed.
pub(crate) fn shell_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some('"'), '\\') if matches!(characters.peek(), Some('"' | '\\' | '$' | '`')) => {
                word.get_or_insert_default().extend(characters.next());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expect) in [
            ("512", Some(512)),
            ("2gb", Some(2 << 30)),
            ("1.5K", Some(1536)),
            ("64 MiB", Some(64 << 20)),
            ("10b", Some(10)),
            ("x", None),
            ("1x", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(size(text), expect, "{text}");
        }
    }

    #[test]
    fn durations_are_sums() {
        for (text, expect) in [
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5s", Some(1500)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("1y", None),
        ] {
            assert_eq!(duration(text), expect.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn commands_are_split_as_shells_do() {
        for (text, expect) in [
            ("a  b", Some(vec!["a", "b"])),
            ("sh -c 'a b \"c\"'", Some(vec!["sh", "-c", "a b \"c\""])),
            (r#"a"b c"\ d "\"\n""#, Some(vec!["ab c d", "\"\\n"])),
            ("a '' b", Some(vec!["a", "", "b"])),
            ("", Some(vec![])),
            ("a 'b", None),
        ] {
            let expect = expect.map(|words| words.iter().map(ToString::to_string).collect());
            assert_eq!(shell_words(text), expect, "{text}");
        }
    }
}
