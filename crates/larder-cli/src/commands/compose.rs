//! `larder compose`

mod build;
mod checks;
mod config;
mod down;
mod images;
mod logs;
mod print;
mod ps;
mod request;
mod run;
mod services;
mod spec;
mod state;
mod supervisor;
mod up;

use anyhow::{Context as _, bail};
use larder_compose::{ErrorKind, LoadOptions, Project, Variables};

use self::state::{ProjectState, ServiceState};

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
        ComposeCommand::Build(build) => return build::run(&build, project, context),
        ComposeCommand::Config(config) => config::run(&config, project, context)?,
        ComposeCommand::Down(down) => down::run(&down, project, context)?,
        ComposeCommand::Exec(_) => bail!("`compose exec` is not supported yet"),
        ComposeCommand::Logs(logs) => logs::run(&logs, project, context)?,
        ComposeCommand::Ps(ps) => ps::run(&ps, project, context)?,
        ComposeCommand::Restart(services) => down::start(&services, true, project, context)?,
        ComposeCommand::Run(run) => return run::run(*run, project, context),
        ComposeCommand::Start(services) => down::start(&services, false, project, context)?,
        ComposeCommand::Stop(services) => down::stop(&services, project, context)?,
        ComposeCommand::Supervise(args) => supervisor::run(args.directory, context)?,
        ComposeCommand::Up(up) => return up::run(&up, project, context),
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
        ..LoadOptions::default()
    })
}

/// Returns the project; `None` if there is no file and the project is named.
fn load_if_there(args: &ProjectArgs, context: &Context<'_>) -> anyhow::Result<Option<Project>> {
    match load_options(args, context)?.load() {
        Err(error) if error.kind() == ErrorKind::NotFound && args.project_name.is_some() => {
            Ok(None)
        }
        loaded => Ok(Some(loaded?)),
    }
}

/// Returns the project's name, by which its services are known; its file need not be there if the
/// name is given.
fn project_name(args: &ProjectArgs, context: &Context<'_>) -> anyhow::Result<String> {
    let given = args.project_name.as_deref();
    match given.or_else(|| context.env.non_empty("COMPOSE_PROJECT_NAME")) {
        Some(name) => Ok(larder_compose::check_project_name(name).map(|()| name.to_owned())?),
        None => Ok(load_options(args, context)?.load()?.name),
    }
}

/// Returns the services of these names that are known; all for no names.
fn chosen(project: &ProjectState, names: &[String]) -> anyhow::Result<Vec<(String, ServiceState)>> {
    let mut services = project.services()?;
    if let Some(name) = names
        .iter()
        .find(|name| services.iter().all(|(known, _)| known != *name))
    {
        bail!("no such service: {name}");
    }
    services.retain(|(name, _)| names.is_empty() || names.contains(name));
    Ok(services)
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
    if args.short {
        output::print(&format!("{version}\n"))
    } else {
        output::print(&format!("larder compose version {version}\n"))
    }
}
