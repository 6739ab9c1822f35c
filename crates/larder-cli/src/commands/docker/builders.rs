//! `docker buildx ls` and `inspect`: the one builder there is.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{anyhow, bail};
use larder_engine::{Engine, PruneRequest};
use serde_json::json;

use super::super::Context;
use super::version::BUILDKIT;
use crate::args::{BuilderArgs, BuildersArgs};
use crate::output;
use crate::table::{Format, Listing, Row};
use crate::units::human_binary_size;

const NAME: &str = "default";
const DRIVER: &str = "larder";
const STATUS: &str = "running";

const LISTING: Listing = Listing {
    fields: &[
        ("Name", "NAME/NODE"),
        ("DriverEndpoint", "DRIVER/ENDPOINT"),
        ("Status", "STATUS"),
        ("Buildkit", "BUILDKIT"),
        ("Platforms", "PLATFORMS"),
        ("Current", "CURRENT"),
    ],
    columns: &["Name", "DriverEndpoint", "Status", "Buildkit", "Platforms"],
};

/// Lists it, and its node below it.
pub(super) fn list(args: &BuildersArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let format = LISTING.parse_format(args.format.as_deref().unwrap_or_default());
    let format = format.map_err(|problem| anyhow!(problem).context("`--format`"))?;
    let is_table = matches!(format, Format::Table(_));
    let (star, branch) = if is_table { ("*", " \\_ ") } else { ("", "") };
    let row = |fields: serde_json::Value| fields.as_object().cloned().unwrap_or_else(Row::new);
    let builder = row(json!({
        "Name": format!("{NAME}{star}"),
        "DriverEndpoint": DRIVER,
        "Status": "",
        "Buildkit": "",
        "Platforms": "",
        "Current": true,
    }));
    let node = row(json!({
        "Name": format!("{branch}{NAME}"),
        "DriverEndpoint": format!("{branch}{NAME}"),
        "Status": STATUS,
        "Buildkit": BUILDKIT,
        "Platforms": platforms(&context.engine()?),
        "Current": true,
    }));
    Ok(output::print(&LISTING.render(&format, &[builder, node]))?)
}

/// Prints it in full.
pub(super) fn inspect(args: &BuilderArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let name = args.name.as_deref().or(args.builder.as_deref());
    if let Some(other) = name.filter(|name| *name != NAME) {
        bail!("no builder \"{other}\" found: there is one, `{NAME}`, in this process");
    }
    let engine = context.engine()?;
    let platforms = platforms(&engine);
    let mut text = format!(
        "Name:   {NAME}\nDriver: {DRIVER}\n\nNodes:\n\
         Name:             {NAME}\n\
         Endpoint:         {NAME}\n\
         Status:           {STATUS}\n\
         BuildKit version: {BUILDKIT}\n\
         Platforms:        {platforms}\n\
         Labels:\n \
         org.mobyproject.buildkit.worker.executor:    larder\n \
         org.mobyproject.buildkit.worker.network:     {}\n \
         org.mobyproject.buildkit.worker.snapshotter: {}\n",
        engine.network()?.name(),
        engine.snapshotter()
    );
    for (index, policy) in engine.gc_policies()?.iter().enumerate() {
        text += &rule(index, policy);
    }
    Ok(output::print(&text)?)
}

/// Lists the platforms whose programs run here.
fn platforms(engine: &Engine) -> String {
    let platforms: Vec<String> = engine.platforms().iter().map(ToString::to_string).collect();
    platforms.join(", ")
}

fn rule(index: usize, policy: &PruneRequest) -> String {
    let mut text = format!("GC Policy rule#{index}:\n");
    let mut line = |name: &str, value: String| {
        writeln!(text, " {:<17}{value}", format!("{name}:")).expect("a String takes all");
    };
    line("All", policy.all.to_string());
    if !policy.filters.is_empty() {
        let filters: Vec<String> = policy.filters.iter().map(ToString::to_string).collect();
        line("Filters", filters.join(","));
    }
    if !policy.keep_duration.is_zero() {
        line("Keep Duration", go_duration(policy.keep_duration));
    }
    for (name, bytes) in [
        ("Max Used Space", policy.max_used_space),
        ("Reserved Space", policy.reserved_space),
        ("Min Free Space", policy.min_free_space),
    ] {
        if bytes > 0 {
            line(name, human_binary_size(bytes));
        }
    }
    text
}

/// Returns a duration as Go writes it: `48h0m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn rules_look_as_buildx_shows_them() {
        let policy = PruneRequest {
            filters: vec!["type==source.local".parse().unwrap()],
            keep_duration: Duration::from_secs(48 * 3600),
            max_used_space: 512_000_000,
            ..PruneRequest::default()
        };
        assert_snapshot!(rule(0, &policy), @r"
        GC Policy rule#0:
         All:             false
         Filters:         type==source.local
         Keep Duration:   48h0m0s
         Max Used Space:  488.3MiB
        ");
        assert_eq!(go_duration(Duration::from_secs(65)), "1m5s");
    }
}
