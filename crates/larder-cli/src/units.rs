//! Sizes and durations as people read and write them, in the forms of Docker's tools.

use std::fmt;

use jiff::SignedDuration;

const DECIMAL_UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A byte count that displays with two decimals and decimal units: `531B`, `1.98MB`.
///
/// The form of progress lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match scale(self.0) {
            (_, "B") => write!(f, "{}B", self.0),
            (value, unit) => write!(f, "{value:.2}{unit}"),
        }
    }
}

/// Returns `bytes` in binary units with at most four significant digits: `488.3MiB`.
///
/// The form of limits in `buildx inspect`.
pub(crate) fn human_binary_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", UNITS[unit])
}

/// Returns `bytes` in decimal units with at most `digits` significant digits: `4.096kB`.
///
/// The form of tables: 4 digits in `du`, 3 in `images`.
pub(crate) fn human_size(bytes: u64, digits: usize) -> String {
    let (value, unit) = scale(bytes);
    let integer_digits = match value {
        value if value >= 100.0 => 3,
        value if value >= 10.0 => 2,
        _ => 1,
    };
    let fixed = format!("{value:.*}", digits.saturating_sub(integer_digits));
    let shortest = if fixed.contains('.') {
        fixed.trim_end_matches('0').trim_end_matches('.')
    } else {
        &fixed
    };
    format!("{shortest}{unit}")
}

fn scale(bytes: u64) -> (f64, &'static str) {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < DECIMAL_UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    (value, DECIMAL_UNITS[unit])
}

/// Returns a rough length of time: `About a minute`, `3 weeks`.
pub(crate) fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    // Halves round up, so that 1h31m reads as two hours.
    let hours = (duration.as_millis() + 1_800_000).div_euclid(3_600_000);
    match (seconds, hours) {
        (i64::MIN..=0, _) => "Less than a second".to_owned(),
        (1, _) => "1 second".to_owned(),
        (2..60, _) => format!("{seconds} seconds"),
        (60..120, _) => "About a minute".to_owned(),
        (120..3600, _) => format!("{} minutes", seconds / 60),
        (_, i128::MIN..=1) => "About an hour".to_owned(),
        (_, 2..48) => format!("{hours} hours"),
        (_, 48..336) => format!("{} days", hours / 24),
        (_, 336..1440) => format!("{} weeks", hours / 24 / 7),
        (_, 1440..17_520) => format!("{} months", hours / 24 / 30),
        (_, 17_520..) => format!("{} years", hours / 24 / 365),
    }
}

/// Parses a size with an optional binary unit, `64m` or `1.5GiB`, into bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("`{text}` is not a size (expected a number and a unit, as in `64m`)");
    let lower = text.to_ascii_lowercase();
    let number_end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(number_end);
    let factor: u64 = match unit.strip_prefix(' ').unwrap_or(unit) {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        "p" | "pb" | "pi" | "pib" => 1 << 50,
        _ => return Err(invalid()),
    };
    let bytes = match number.parse::<u64>() {
        Ok(count) => count.checked_mul(factor),
        Err(_) => number
            .parse::<f64>()
            .ok()
            .map(|value| value * factor as f64)
            .filter(|bytes| *bytes < u64::MAX as f64)
            .map(|bytes| bytes as u64),
    };
    bytes
        .filter(|_| number.starts_with(|c: char| c.is_ascii_digit()))
        .ok_or_else(invalid)
}

/// Parses a duration of Go's form, `24h` or `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("`{text}` is not a duration (expected one such as `24h` or `1h30m`)");
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(invalid)?;
        let value: f64 = rest[..number_end].parse().map_err(|_| invalid())?;
        rest = &rest[number_end..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += value
            * match &rest[..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(invalid()),
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() {
        return Err(invalid());
    }
    SignedDuration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_sizes_have_four_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (1024, "1KiB"),
            (512_000_000, "488.3MiB"),
            (10_000_000_000, "9.313GiB"),
            (100_000_000_000, "93.13GiB"),
            (51_000_000_000, "47.5GiB"),
            (1023 << 20, "1023MiB"),
        ] {
            assert_eq!(human_binary_size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn progress_sizes_have_two_decimals() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (4096, "4.10kB"),
            (1_980_000, "1.98MB"),
            (3_000_000_000, "3.00GB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn table_sizes_have_significant_digits() {
        for (bytes, digits, text) in [
            (0, 4, "0B"),
            (4096, 4, "4.096kB"),
            (1_980_000, 4, "1.98MB"),
            (5_242_880, 4, "5.243MB"),
            (123_456_789, 3, "123MB"),
            (999_999, 4, "1000kB"),
            (10_000, 4, "10kB"),
            (1_500_000_000, 3, "1.5GB"),
        ] {
            assert_eq!(human_size(bytes, digits), text);
        }
    }

    #[test]
    fn durations_are_rough() {
        let minute = 60;
        let hour = 60 * minute;
        let day = 24 * hour;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (47, "47 seconds"),
            (60, "About a minute"),
            (3 * minute, "3 minutes"),
            (59 * minute, "59 minutes"),
            (hour, "About an hour"),
            (hour + 29 * minute, "About an hour"),
            (hour + 31 * minute, "2 hours"),
            (36 * hour, "36 hours"),
            (2 * day, "2 days"),
            (13 * day + 5 * hour, "13 days"),
            (14 * day, "2 weeks"),
            (30 * day, "4 weeks"),
            (60 * day, "2 months"),
            (13 * 30 * day, "13 months"),
            (24 * 30 * day, "24 months"),
            (3 * 365 * day + 60 * day, "3 years"),
        ] {
            assert_eq!(human_duration(SignedDuration::from_secs(seconds)), text);
        }
        assert_eq!(
            human_duration(SignedDuration::from_millis(450)),
            "Less than a second"
        );
    }

    #[test]
    fn parses_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("64m", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("10 kb", 10 << 10),
            ("2G", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "1..2",
            ".",
            "99999999999p",
            "1 m b",
            "1e3",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parses_durations() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5_400), ("20s", 20)] {
            assert_eq!(
                parse_duration(text),
                Ok(SignedDuration::from_secs(seconds)),
                "{text}"
            );
        }
        for bad in ["", "24", "h", "1d", "-1h", "1h2"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
