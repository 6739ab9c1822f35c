//! Points in time.

use std::collections::BTreeMap;

use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Done, exactly};
use crate::definitions::Definitions;
use crate::error::Error;
use crate::value::Value;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The time of the evaluation, in UTC.
pub(super) fn timestamp(args: &[Value], definitions: &Definitions) -> Done {
    let [] = exactly(args)?;
    let now = definitions.now().to_zoned(TimeZone::UTC);
    Ok(Value::String(rfc3339(&now)))
}

fn rfc3339(time: &Zoned) -> String {
    let seconds = time.offset().seconds();
    let zone = if seconds == 0 {
        "Z".to_owned()
    } else {
        offset(time, ":")
    };
    format!("{}{zone}", time.strftime("%Y-%m-%dT%H:%M:%S"))
}

fn offset(time: &Zoned, separator: &str) -> String {
    let seconds = time.offset().seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.unsigned_abs() / 60;
    format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

/// Parses RFC 3339, and nothing that is merely like it.
fn parse(text: &str) -> Result<Zoned, Error> {
    let invalid = || Error::definition(format!("`{text}` is no time in RFC 3339"));
    let bytes = text.as_bytes();
    if bytes.get(10).is_none_or(|byte| *byte != b'T') || !text.is_ascii() {
        return Err(invalid());
    }
    let timestamp: Timestamp = text.parse().map_err(|_| invalid())?;
    if text.ends_with('Z') {
        return Ok(timestamp.to_zoned(TimeZone::UTC));
    }
    let zone = text
        .get(text.len().saturating_sub(6)..)
        .ok_or_else(invalid)?;
    let (hours, minutes) = zone[1..].split_once(':').ok_or_else(invalid)?;
    let hours: i32 = hours.parse().map_err(|_| invalid())?;
    let minutes: i32 = minutes.parse().map_err(|_| invalid())?;
    let seconds = hours * 3600 + minutes * 60;
    let seconds = if zone.starts_with('-') {
        -seconds
    } else {
        seconds
    };
    let offset = Offset::from_seconds(seconds).map_err(|_| invalid())?;
    Ok(timestamp.to_zoned(offset.to_time_zone()))
}

/// Seconds since 1970, or RFC 3339.
fn parse_either(value: &Value) -> Result<Zoned, Error> {
    match value {
        Value::Number(_) => unix(value),
        other => parse(&other.to_text()?),
    }
}

fn unix(value: &Value) -> Result<Zoned, Error> {
    let Value::Number(_) = value else {
        return Err(value.mismatch("number"));
    };
    Timestamp::from_second(value.to_whole()?)
        .map(|timestamp| timestamp.to_zoned(TimeZone::UTC))
        .map_err(|_| Error::definition("the time is out of range"))
}

/// `timeadd(time, duration)`
pub(super) fn add(args: &[Value]) -> Done {
    let [time, duration] = exactly(args)?;
    let (time, duration) = (parse(&time.to_text()?)?, duration.to_text()?);
    let span = parse_duration(&duration)
        .ok_or_else(|| Error::definition(format!("`{duration}` is no duration")))?;
    let sum = time
        .checked_add(span)
        .map_err(|_| Error::definition("the time is out of range"))?;
    Ok(Value::String(rfc3339(&sum)))
}

/// Parses a duration as Go does: `1h30m`, `-1.5h`, `300ms`.
fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (is_negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanoseconds: f64 = (!rest.is_empty()).then_some(0.0)?;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanoseconds += number * unit;
        rest = &rest[end..];
    }
    // Go's durations end here.
    if nanoseconds >= i64::MAX as f64 {
        return None;
    }
    let duration = SignedDuration::from_nanos(nanoseconds as i64);
    Some(if is_negative { -duration } else { duration })
}

/// `formatdate(format, time)`
pub(super) fn format_date(args: &[Value]) -> Done {
    let [format, time] = exactly(args)?;
    let time = parse(&time.to_text()?)?;
    render(&format.to_text()?, &time).map(Value::String)
}

/// `formattimestamp(format, time)`: as `formatdate`, also of seconds since 1970, and `X` for them.
pub(super) fn format_timestamp(args: &[Value]) -> Done {
    let [format, time] = exactly(args)?;
    let (format, time) = (format.to_text()?, parse_either(time)?);
    if format == "X" {
        return Ok(Value::String(time.timestamp().as_second().to_string()));
    }
    render(&format, &time).map(Value::String)
}

/// Replaces sequences of equal letters, and takes text in quotes as it is.
fn render(format: &str, time: &Zoned) -> Result<String, Error> {
    let mut rendered = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let (text, after) = quoted(&rest[1..])?;
            rendered.push_str(&text);
            rest = after;
            continue;
        }
        let end = rest.find(|letter| letter != first).unwrap_or(rest.len());
        let (sequence, after) = rest.split_at(end);
        rest = after;
        if first.is_ascii_alphabetic() {
            rendered.push_str(&verb(sequence, time)?);
        } else {
            rendered.push_str(sequence);
        }
    }
    Ok(rendered)
}

/// Takes text up to a quote; two quotes stand for one.
fn quoted(text: &str) -> Result<(String, &str), Error> {
    let mut taken = String::new();
    let mut rest = text;
    loop {
        let quote = rest
            .find('\'')
            .ok_or_else(|| Error::definition("the format has a quote without an end"))?;
        taken.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                taken.push('\'');
                rest = after;
            }
            None => return Ok((taken, rest)),
        }
    }
}

fn verb(sequence: &str, time: &Zoned) -> Result<String, Error> {
    let month = MONTHS[(time.month() - 1) as usize];
    let hour = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let is_morning = time.hour() < 12;
    let is_utc = time.offset().seconds() == 0;
    Ok(match sequence {
        "YYYY" => format!("{:04}", time.year()),
        "YY" => format!("{:02}", time.year().rem_euclid(100)),
        "MMMM" => month.to_owned(),
        "MMM" => month[..3].to_owned(),
        "MM" => format!("{:02}", time.month()),
        "M" => time.month().to_string(),
        "DD" => format!("{:02}", time.day()),
        "D" => time.day().to_string(),
        "EEEE" => weekday(time).to_owned(),
        "EEE" => weekday(time)[..3].to_owned(),
        "hh" => format!("{:02}", time.hour()),
        "h" => time.hour().to_string(),
        "HH" => format!("{hour:02}"),
        "H" => hour.to_string(),
        "AA" => if is_morning { "AM" } else { "PM" }.to_owned(),
        "aa" => if is_morning { "am" } else { "pm" }.to_owned(),
        "mm" => format!("{:02}", time.minute()),
        "m" => time.minute().to_string(),
        "ss" => format!("{:02}", time.second()),
        "s" => time.second().to_string(),
        "ZZZ" if is_utc => "UTC".to_owned(),
        "Z" if is_utc => "Z".to_owned(),
        "ZZZZ" | "ZZZ" => offset(time, ""),
        "ZZZZZ" | "Z" => offset(time, ":"),
        _ => {
            return Err(Error::definition(format!(
                "`{sequence}` means nothing in the format of a date"
            )));
        }
    })
}

fn weekday(time: &Zoned) -> &'static str {
    match time.weekday() {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

/// `unixtimestampparse(seconds)`: the parts of a time, in UTC.
pub(super) fn parse_unix(args: &[Value]) -> Done {
    let [seconds] = exactly(args)?;
    let time = unix(seconds)?;
    let week = time.date().iso_week_date();
    let number = |number: i64| Value::integer(number);
    let entries = [
        ("year", number(time.year().into())),
        ("year_day", number(time.day_of_year().into())),
        ("day", number(time.day().into())),
        ("month", number(time.month().into())),
        (
            "month_name",
            Value::text(MONTHS[(time.month() - 1) as usize]),
        ),
        (
            "weekday",
            number(time.weekday().to_sunday_zero_offset().into()),
        ),
        ("weekday_name", Value::text(weekday(&time))),
        ("hour", number(time.hour().into())),
        ("minute", number(time.minute().into())),
        ("second", number(time.second().into())),
        ("rfc3339", Value::String(rfc3339(&time))),
        ("iso_year", number(week.year().into())),
        ("iso_week", number(week.week().into())),
    ];
    let entries: BTreeMap<String, Value> = entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Ok(Value::Object(entries))
}
