//! `larder compose`

mod build;
mod config;
mod print;
mod request;

use anyhow::{Context as _, bail};
use larder_compose::{LoadOptions, Project, Variables};

use super::Context;
use crate::args::{ComposeArgs, ComposeCommand, ComposeVersionArgs, ProjectArgs};
use crate::exit::{self, Code};
use crate::output;

/// Does what `larder compose` is asked for. Returns the exit code.
pub(crate) fn run(args: ComposeArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    if args.project.dry_run {
        bail!("`--dry-run` is not supported yet");
    }
    let project = &args.project;
    match args.command {
        ComposeCommand::Build(build) => build::run(&build, project, context)?,
        ComposeCommand::Config(config) => config::run(&config, project, context)?,
        ComposeCommand::Version(version) => tell_version(&version)?,
    }
    Ok(exit::SUCCESS)
}

/// Loads the project that flags and environment name, and tells its warnings.
fn load(args: &ProjectArgs, context: &Context<'_>) -> anyhow::Result<Project> {
    load_with(&load_options(args, context)?)
}

fn load_options(args: &ProjectArgs, context: &Context<'_>) -> anyhow::Result<LoadOptions> {
    Ok(LoadOptions {
        working_directory: std::env::current_dir().context("there is no working directory")?,
        files: args.files.clone(),
        project_directory: args.project_directory.clone(),
        project_name: args.project_name.clone(),
        profiles: args.profiles.clone(),
        env_files: args.env_files.clone(),
        variables: Variables::of(context.env.iter()),
        no_interpolate: false,
    })
}

fn load_with(options: &LoadOptions) -> anyhow::Result<Project> {
    let project = options.load()?;
    for warning in &project.warnings {
        output::tell(&format!("WARNING: {warning}"));
    }
    Ok(project)
}

fn tell_version(args: &ComposeVersionArgs) -> std::io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match args.short {
        true => output::print(&format!("{version}\n")),
        false => output::print(&format!("larder compose version {version}\n")),
    }
}
