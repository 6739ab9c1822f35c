//! `larder compose config`

use std::collections::BTreeSet;

use larder_compose::{LoadOptions, Project};

use super::Context;
use crate::args::{ConfigArgs, ProjectArgs};
use crate::output;

/// Shows the project, or a list of what is in it.
pub(super) fn run(
    args: &ConfigArgs,
    project: &ProjectArgs,
    context: &Context<'_>,
) -> anyhow::Result<()> {
    let options = LoadOptions {
        no_interpolate: args.no_interpolate,
        ..super::load_options(project, context)?
    };
    let mut project = super::load_with(&options)?;
    project.enable(&args.services)?;
    let needed: BTreeSet<String> = project
        .in_order(&args.services)?
        .into_iter()
        .map(|service| service.name.clone())
        .collect();
    project.services.retain(|name, _| needed.contains(name));
    let text = text(args, &project)?;
    match (&args.output, args.quiet) {
        (_, true) => {}
        (Some(file), false) => fs_err::write(file, text)?,
        (None, false) => output::print(&text)?,
    }
    Ok(())
}

fn text(args: &ConfigArgs, project: &Project) -> anyhow::Result<String> {
    let names: Vec<String> = if args.list_services {
        project.services.keys().cloned().collect()
    } else if args.volumes {
        names_in_use(project, "volumes")
    } else if args.networks {
        names_in_use(project, "networks")
    } else if args.profiles {
        project.profiles().into_iter().map(str::to_owned).collect()
    } else if args.images {
        let services = project.services.values();
        services
            .map(|service| service.image_name(&project.name))
            .collect()
    } else {
        let escape = !args.no_interpolate;
        return Ok(match args.format.as_str() {
            "json" => project.to_json(escape)?,
            _ => project.to_yaml(escape)?,
        });
    };
    Ok(names.into_iter().map(|name| name + "\n").collect())
}

fn names_in_use(project: &Project, section: &str) -> Vec<String> {
    let names = project.in_use(section).into_iter();
    names.map(str::to_owned).collect()
}
