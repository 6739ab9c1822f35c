//! One module a verb: each turns arguments into a request to the engine, and the answer into text.

mod archive;
mod bake;
mod build;
mod compose;
mod docker;
mod doctor;
mod explain;
mod image;
mod info;
mod llb;
mod login;
mod policy;
mod records;
mod registry;
mod run;
mod shim;

use std::cell::OnceCell;
use std::path::PathBuf;

use anyhow::Context as _;
use larder_engine::config::Config;
use larder_engine::request::SourcePolicy;
use larder_engine::{BuildError, Engine, EngineOptions};
use larder_exec::rootless;
use larder_oci::ImageRef;

use crate::args::{Cli, Command, GlobalArgs};
use crate::environment::Environment;
use crate::exit::{self, Code};
use crate::output;

/// The state directory of root.
const SYSTEM_ROOT: &str = "/var/lib/larder";

/// What every verb may need.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) global: GlobalArgs,
    pub(crate) env: &'a Environment,
    /// Once it was read.
    pub(crate) source_policy: OnceCell<SourcePolicy>,
}

impl Context<'_> {
    /// Opens the engine: the state directory and the configuration that flags and environment
    /// name. An ordinary user enters a user namespace first, so no thread may run yet.
    pub(crate) fn engine(&self) -> anyhow::Result<Engine> {
        self.engine_with(self.config()?)
    }

    /// Opens the engine as [`Context::engine`] does; for `insecure`, with plain http and unknown
    /// certificates allowed at the registry of `image_ref`.
    pub(crate) fn engine_for(
        &self,
        image_ref: &ImageRef,
        insecure: bool,
    ) -> anyhow::Result<Engine> {
        let mut config = self.config()?;
        if insecure {
            let registry = image_ref.registry().to_owned();
            config.registry.entry(registry).or_default().insecure = Some(true);
        }
        self.engine_with(config)
    }

    fn engine_with(&self, config: Config) -> anyhow::Result<Engine> {
        let mut options = EngineOptions::new(self.root(&config)?);
        options.config = config;
        if rootless::needs_user_namespace() {
            rootless::enter_user_namespace().map_err(BuildError::from)?;
        }
        Ok(Engine::open(options)?)
    }

    /// Returns the state directory, absolute.
    pub(crate) fn state_root(&self) -> anyhow::Result<PathBuf> {
        self.root(&self.config()?)
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
            // Mounts are made beneath it from other working directories.
            Some(root) => std::path::absolute(&root).context("`--root`"),
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
        source_policy: OnceCell::new(),
    };
    match cli.command {
        Command::Build(args) => return build::run(*args, &context),
        Command::Bake(args) => return bake::run(&args, &context),
        Command::Compose(args) => return compose::run(*args, &context),
        Command::Llb(command) => return llb::run(command, &context),
        Command::Doctor(args) => return doctor::run(&args, &context),
        Command::Explain(args) => explain::run(&args, &context)?,
        Command::Images(args) => image::list(&args, &context)?,
        Command::Rmi(args) => image::remove(&args, &context)?,
        Command::Tag(args) => image::tag(&args, &context)?,
        Command::Inspect(args) => image::inspect(&args, &context)?,
        Command::History(args) => image::history(&args, &context)?,
        Command::Save(args) => archive::save(args, &context)?,
        Command::Load(args) => archive::load(&args, &context)?,
        Command::Import(args) => archive::import(&args, &context)?,
        Command::Push(args) => registry::push(&args, &context)?,
        Command::Pull(args) => registry::pull(&args, &context)?,
        Command::Login(args) => login::log_in(args, &context)?,
        Command::Logout(args) => login::log_out(&args, &context)?,
        Command::Run(args) => return Ok(run::run(*args, &context)),
        Command::Du(args) => records::du(&args, &context)?,
        Command::Prune(args) => records::prune(&args, &context)?,
        Command::Shim(command) => shim::run(command)?,
        Command::Docker(command) => docker::run(command, &context)?,
        Command::Info => info::run(&context)?,
        Command::Version => output::print(concat!("larder ", env!("CARGO_PKG_VERSION"), "\n"))?,
    }
    Ok(exit::SUCCESS)
}
