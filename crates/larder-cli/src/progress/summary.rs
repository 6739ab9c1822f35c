//! What is shown once the build has ended: the output of failed steps, the warnings.

use std::io::Write;

use larder_engine::event::WarningEvent;

use super::colors::Paint;
use super::trace::Trace;
use crate::excerpt;

/// How many of the last lines of a failed step are repeated.
pub(super) const FAILURE_LINES: usize = 10;

/// Repeats the last lines of each failed step.
pub(super) fn failures(trace: &Trace, out: &mut Vec<u8>) {
    for (_, row) in trace.started().filter(|(_, row)| row.failure().is_some()) {
        put(out, format_args!("------\n > {}:\n", row.name));
        let skipped = row.log.lines.len().saturating_sub(FAILURE_LINES);
        for line in row.log.lines.iter().skip(skipped) {
            out.extend_from_slice(&line.timed());
            out.push(b'\n');
        }
        out.extend_from_slice(b"------\n");
    }
}

/// Lists the warnings; in full with `debug`.
pub(super) fn warnings(warnings: &[WarningEvent], debug: bool, paint: &Paint, out: &mut Vec<u8>) {
    let count = match warnings.len() {
        0 => return,
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    let hint = if debug {
        ""
    } else {
        " (use docker --debug to expand)"
    };
    let title = paint.warning(&format!("{count}{hint}:"));
    put(out, format_args!("\n {title}\n"));
    for warning in warnings {
        put(out, format_args!(" - {}\n", warning.short));
        if debug {
            expanded(warning, out);
        }
    }
}

fn expanded(warning: &WarningEvent, out: &mut Vec<u8>) {
    for line in &warning.detail {
        put(out, format_args!("{line}\n"));
    }
    if !warning.url.is_empty() {
        put(out, format_args!("More info: {}\n", warning.url));
    }
    if let Some(source) = &warning.source {
        put(
            out,
            format_args!("{}", excerpt::of(source, &warning.ranges)),
        );
    }
    out.push(b'\n');
}

/// Appends formatted text.
pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing into memory does not fail");
}
