//! `larder explain`

use anyhow::{Context as _, anyhow};

use super::Context;
use crate::args::ExplainArgs;
use crate::{explain, output};

/// Prints what became of the steps of the last build, and why.
pub(crate) fn run(args: &ExplainArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let steps = context
        .engine()?
        .last_build()?
        .context("no build is on record in this state directory")?;
    let selected =
        explain::select(&steps, args.step.as_deref()).map_err(|problem| anyhow!(problem))?;
    let text = match args.format.as_str() {
        "json" => explain::json(&selected),
        _ => explain::text(&selected),
    };
    Ok(output::print(&text)?)
}
