//! `larder build`

mod input;
mod outputs;
mod plan;
mod report;
mod secrets;

use std::io::{self, Read};

use anyhow::bail;

use self::plan::Plan;
use super::Context;
use crate::args::BuildArgs;
use crate::exit::Code;
use crate::output;

/// Builds.
pub(crate) fn run(args: BuildArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    let stdin: Box<dyn Read + Send> = Box::new(io::stdin());
    let plan = Plan::new(args, context, stdin)?;
    for note in &plan.notes {
        output::tell(&format!("WARNING: {note}"));
    }
    bail!("`larder build` is not supported yet")
}
