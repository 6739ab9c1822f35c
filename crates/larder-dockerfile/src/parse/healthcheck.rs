use larder_oci::Healthcheck;

use crate::args;
use crate::flags::FlagKind::Text;
use crate::flags::{FlagKind, Flags};
use crate::golang;
use crate::statement::Statement;

const FLAGS: [(&str, FlagKind); 5] = [
    ("interval", Text),
    ("timeout", Text),
    ("start-period", Text),
    ("start-interval", Text),
    ("retries", Text),
];
/// Docker refuses shorter times.
const MIN_NANOSECONDS: i64 = 1_000_000;

/// Parses HEALTHCHECK.
pub(super) fn parse(statement: &Statement) -> Result<Healthcheck, String> {
    let (kind, rest) = match statement.rest.split_once(char::is_whitespace) {
        Some((kind, rest)) => (kind.to_uppercase(), rest.trim_start()),
        None => (statement.rest.to_uppercase(), ""),
    };
    match kind.as_str() {
        "" => Err("HEALTHCHECK requires at least one argument".to_owned()),
        "NONE" if !rest.is_empty() => Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "NONE" => Ok(Healthcheck {
            test: vec![kind],
            ..Healthcheck::default()
        }),
        "CMD" => command(statement, rest),
        _ => Err(format!(
            "Unknown type {} in HEALTHCHECK (try CMD)",
            golang::quote(&kind)
        )),
    }
}

fn command(statement: &Statement, rest: &str) -> Result<Healthcheck, String> {
    let flags = Flags::parse(&statement.flags, &FLAGS)?;
    let test = match args::json_strings(rest)? {
        Some(words) if !words.is_empty() => [vec!["CMD".to_owned()], words].concat(),
        None if !rest.is_empty() => vec!["CMD-SHELL".to_owned(), rest.to_owned()],
        _ => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
    };
    Ok(Healthcheck {
        test,
        interval: duration(&flags, "interval")?,
        timeout: duration(&flags, "timeout")?,
        start_period: duration(&flags, "start-period")?,
        start_interval: duration(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

fn duration(flags: &Flags, name: &str) -> Result<i64, String> {
    let Some(text) = flags.text(name).filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    match golang::parse_duration(text) {
        None => Err(format!("time: invalid duration {}", golang::quote(text))),
        Some(time) if time != 0 && time < MIN_NANOSECONDS => Err(format!(
            "Interval {} cannot be less than {}",
            golang::quote(name),
            golang::format_duration(MIN_NANOSECONDS)
        )),
        Some(time) => Ok(time),
    }
}

fn retries(flags: &Flags) -> Result<i64, String> {
    let Some(text) = flags.text("retries").filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    match text.parse::<i32>() {
        Err(_) => Err(format!("--retries must be a number, not `{text}`")),
        Ok(count) if count < 0 => Err(format!("--retries cannot be negative ({count})")),
        Ok(count) => Ok(count.into()),
    }
}
