//! `larder compose ps`

use anyhow::anyhow;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Context;
use super::spec::Spec;
use super::state::{ProjectState, Record, Status};
use crate::args::{ProjectArgs, PsArgs};
use crate::output;
use crate::table::{Listing, Row};
use crate::units::human_duration;

/// Columns of a command that is cut.
const COMMAND_LENGTH: usize = 20;

/// The listing of `larder compose ps`.
const SERVICES: Listing = Listing {
    fields: &[
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("Service", "SERVICE"),
        ("CreatedAt", "CREATED"),
        ("State", "STATE"),
        ("Health", "HEALTH"),
        ("ExitCode", "EXIT CODE"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
    ],
    columns: &[
        "Name",
        "Image",
        "Command",
        "Service",
        "CreatedAt",
        "Status",
        "Ports",
    ],
};

/// Lists the services of a project that run, or all that are known.
pub(super) fn run(
    args: &PsArgs,
    project_args: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let name = super::project_name(project_args, context)?;
    let state = ProjectState::new(&context.state_root()?, &name);
    let format = SERVICES
        .parse_format(&args.format)
        .map_err(|problem| anyhow!(problem).context("`--format`"))?;
    let now = Timestamp::now();
    let (mut rows, mut names) = (Vec::new(), String::new());
    for (service, state) in super::chosen(&state, &args.services)? {
        let (Some(spec), Some(record)) = (state.spec(), state.record()) else {
            continue;
        };
        let runs = matches!(record.status, Status::Starting | Status::Running);
        if !runs && !args.all {
            continue;
        }
        let line = if args.list_services {
            service
        } else {
            spec.container_name()
        };
        names.push_str(&line);
        names.push('\n');
        rows.push(row(&spec, &record, now));
    }
    let text = if args.quiet || args.list_services {
        names
    } else {
        SERVICES.render(&format, &rows)
    };
    Ok(output::print(&text)?)
}

fn row(spec: &Spec, record: &Record, now: Timestamp) -> Row {
    let age = human_duration(now.duration_since(record.started_at));
    let health = record
        .health
        .map(|health| health.name().trim_start_matches("health: "));
    let (state, code, status) = match &record.status {
        Status::Starting => ("created", 0, "Created".to_owned()),
        Status::Running => {
            let health = record.health.map(|health| format!(" ({})", health.name()));
            (
                "running",
                0,
                format!("Up {age}{}", health.unwrap_or_default()),
            )
        }
        Status::Exited(code) => ("exited", *code, format!("Exited ({code})")),
        Status::Failed(_) => ("exited", 127, "Exited (127)".to_owned()),
    };
    let fields: [(&str, Value); 10] = [
        ("Name", json!(spec.container_name())),
        ("Image", json!(spec.image)),
        ("Command", json!(command(spec))),
        ("Service", json!(spec.service)),
        ("CreatedAt", json!(format!("{age} ago"))),
        ("State", json!(state)),
        ("Health", json!(health.unwrap_or_default())),
        ("ExitCode", json!(code)),
        ("Status", json!(status)),
        ("Ports", json!(spec.ports)),
    ];
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn command(spec: &Spec) -> String {
    let text = &spec.shown_command;
    match text.char_indices().nth(COMMAND_LENGTH) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}
