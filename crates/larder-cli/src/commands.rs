//! One module a verb: each turns arguments into a request to the engine, and the answer into text.

mod build;
mod version;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use larder_engine::config::Config;
use larder_engine::{Engine, EngineOptions};

use crate::args::{Cli, Command, GlobalArgs};
use crate::environment::Environment;
use crate::exit::Code;
use crate::output;

/// The state directory of root.
const SYSTEM_ROOT: &str = "/var/lib/larder";

/// What every verb may need.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) global: GlobalArgs,
    pub(crate) env: &'a Environment,
}

impl Context<'_> {
    /// Opens the engine: the state directory and the configuration that flags and environment
    /// name.
    pub(crate) fn engine(&self) -> anyhow::Result<Engine> {
        let config = self.config()?;
        let mut options = EngineOptions::new(self.root(&config)?);
        options.config = config;
        Ok(Engine::open(options)?)
    }

    fn config(&self) -> anyhow::Result<Config> {
        let named = self.global.config.clone();
        let config = match named.or_else(|| self.env.path("LARDER_CONFIG")) {
            Some(path) => Config::read(&path)?,
            None => Config::read_first(self.env.config_files())?,
        };
        for key in config.unknown_keys() {
            output::tell(&format!(
                "WARNING: the configuration's `{key}` is unknown to larder"
            ));
        }
        Ok(config)
    }

    fn root(&self, config: &Config) -> anyhow::Result<PathBuf> {
        let named = self.global.root.clone();
        let named = named
            .or_else(|| self.env.path("LARDER_ROOT"))
            .or_else(|| config.root.clone());
        match named {
            Some(root) => Ok(root),
            None if rustix::process::geteuid().is_root() => Ok(PathBuf::from(SYSTEM_ROOT)),
            None => self
                .env
                .user_root()
                .context("there is no home directory for the state; name one with `--root`"),
        }
    }
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
