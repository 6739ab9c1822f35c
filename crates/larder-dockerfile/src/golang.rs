//! Go's text forms, where users see or write them: quoted strings and durations in history
//! entries, durations, numbers and sizes in flags.

use std::fmt::Write as _;

const NANOSECOND: i64 = 1;
const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Quotes as `%q` does.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => {
                let _ = write!(out, "\\U{:08x}", c as u32);
            }
        }
    }
    out.push('"');
    out
}

fn is_printable(c: char) -> bool {
    c == '\'' || c.escape_debug().next() == Some(c)
}

/// Writes a list as `%q` does: `["a" "b"]`.
pub(crate) fn quote_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Writes nanoseconds as Go's `time.Duration` does: `1m30s`, `1.5ms`.
pub(crate) fn format_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |unit: i64, name: &str| {
        let unit = unit.unsigned_abs();
        let (whole, rest) = (total / unit, total % unit);
        let digits = unit.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        let fraction = fraction.trim_end_matches('0');
        if rest == 0 {
            format!("{whole}{name}")
        } else {
            format!("{whole}.{fraction}{name}")
        }
    };
    if total == 0 {
        return "0s".to_owned();
    }
    if total < SECOND.unsigned_abs() {
        let (unit, name) = match total {
            0..1_000 => (NANOSECOND, "ns"),
            1_000..1_000_000 => (MICROSECOND, "µs"),
            _ => (MILLISECOND, "ms"),
        };
        return format!("{sign}{}", decimal(unit, name));
    }
    let (hours, rest) = (total / HOUR as u64, total % HOUR as u64);
    let (minutes, rest) = (rest / MINUTE as u64, rest % MINUTE as u64);
    let mut out = sign.to_owned();
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    let (seconds, fraction) = (rest / SECOND as u64, rest % SECOND as u64);
    let fraction = format!("{fraction:09}");
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let _ = write!(out, "{seconds}{dot}{fraction}s");
    out
}

/// Reads a Go duration (`1h30m`, `1.5s`) as nanoseconds; `None` when it is none or too large.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "ns" => NANOSECOND,
            "us" | "µs" | "μs" => MICROSECOND,
            "ms" => MILLISECOND,
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            _ => return None,
        };
        total = total.checked_add(scaled(number, unit)?)?;
        rest = after;
    }
    Some(if negative { -total } else { total })
}

/// Multiplies a decimal number with a unit, exactly, rounding down.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut total = i128::from(whole) * i128::from(unit);
    let mut place = i128::from(unit);
    for digit in fraction.bytes() {
        place /= 10;
        total += i128::from(digit - b'0') * place;
    }
    i64::try_from(total).ok()
}

/// Reads a boolean as Go's `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a size in bytes as Docker does: `512`, `64m`, `1.5GiB`; the units are powers of 1024.
pub(crate) fn parse_bytes(text: &str) -> Option<i64> {
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.')
        .map(|at| at + 1)?;
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix);
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    if !number.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return None;
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 1i128 << shift;
    let mut total = whole.parse::<i64>().ok().map(i128::from)? * scale;
    if !fraction.is_empty() {
        // 15 digits are finer than a byte of the largest unit.
        let digits: String = fraction.chars().take(15).collect();
        let value: i128 = digits.parse::<i64>().ok()?.into();
        total += value * scale / 10i128.pow(digits.len() as u32);
    }
    i64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (5_000_000_000, "5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_050_000_000, "1.05s"),
        ] {
            assert_eq!(format_duration(nanoseconds), text);
            assert_eq!(parse_duration(text), Some(nanoseconds), "{text}");
        }
        for bad in ["", "1", "s", "1x", "-", "1.2.3s", ".s", "9999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_duration("-1.5h"), Some(-5_400_000_000_000));
    }

    #[test]
    fn strings_are_quoted_as_go_does() {
        assert_eq!(quote("a\"b\\\n\u{1}é\u{a0}'"), r#""a\"b\\\n\x01é\u00a0'""#);
        assert_eq!(quote_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
        assert_eq!(quote_list(&[]), "[]");
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("1m", Some(1 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2 KB", Some(2048)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("-1", None),
            ("1.2.3", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }
}
