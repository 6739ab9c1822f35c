//! What Docker's command lines ask for that is no verb of larder's; see [`crate::shim`].

mod builders;
mod imagetools;
mod system;
mod version;

use super::Context;
use crate::args::DockerCommand;
use crate::output;
use crate::shim;

/// Does what is asked for.
pub(crate) fn run(command: DockerCommand, context: &Context<'_>) -> anyhow::Result<()> {
    match command {
        DockerCommand::Verbs => Ok(output::print(&help())?),
        DockerCommand::Line(args) => version::line(&args.name),
        DockerCommand::Plugin(args) => version::plugin(&args.name),
        DockerCommand::Version(args) => version::version(args.format.as_deref()),
        DockerCommand::Info(args) => version::info(args.format.as_deref(), context),
        DockerCommand::Df(args) => system::df(&args, context),
        DockerCommand::ImagePrune(args) => system::image_prune(&args, context),
        DockerCommand::SystemPrune(args) => system::prune(&args, context),
        DockerCommand::BuildxVersion(_) => version::line("docker-buildx"),
        DockerCommand::ComposeVersion(args) => {
            version::compose(args.short, args.format.as_deref() == Some("json"))
        }
        DockerCommand::Builders(args) => builders::list(&args, context),
        DockerCommand::Builder(args) => builders::inspect(&args, context),
        DockerCommand::ImagetoolsInspect(args) => imagetools::inspect(&args, context),
    }
}

fn help() -> String {
    format!(
        "larder answers these command lines of Docker's:\n\n{}\n\
         `--help` behind one tells its flags; `larder --help` tells of larder's own verbs.\n",
        shim::listed()
    )
}
