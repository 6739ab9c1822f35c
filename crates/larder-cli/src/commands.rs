//! One module a verb: each turns arguments into a request to the engine, and the answer into text.

mod build;
mod version;

use anyhow::bail;

use crate::args::{Cli, Command, GlobalArgs};
use crate::environment::Environment;
use crate::exit::Code;

/// What every verb may need.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) global: GlobalArgs,
    pub(crate) env: &'a Environment,
}

/// Does what the command line says. Returns the exit code.
pub(crate) fn run(cli: Cli, env: &Environment) -> anyhow::Result<Code> {
    let context = Context {
        global: cli.global,
        env,
    };
    match cli.command {
        Command::Build(args) => build::run(*args, &context),
        Command::Version => version::run(),
        Command::Explain(_) => later("explain"),
        Command::Images(_) => later("images"),
        Command::Rmi(_) => later("rmi"),
        Command::Tag(_) => later("tag"),
        Command::Inspect(_) => later("inspect"),
        Command::History(_) => later("history"),
        Command::Save(_) => later("save"),
        Command::Load(_) => later("load"),
        Command::Import(_) => later("import"),
        Command::Run(_) => later("run"),
        Command::Du(_) => later("du"),
        Command::Prune(_) => later("prune"),
    }
}

fn later(verb: &str) -> anyhow::Result<Code> {
    bail!("`larder {verb}` is not supported yet")
}
