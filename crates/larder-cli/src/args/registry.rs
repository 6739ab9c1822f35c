//! The flags of the verbs that speak to registries.

use larder_oci::Platform;

use super::values;

/// `larder push`
#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// The image's name, which begins with its registry
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: String,
    /// Push all tags of the name
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Show the name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Push the image for one platform only [default: all that are stored]
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub(crate) platform: Option<Platform>,
    /// Let plain http and unknown certificates do
    #[arg(long)]
    pub(crate) insecure: bool,
    #[arg(long, hide = true)]
    pub(crate) disable_content_trust: bool,
}

/// `larder pull`
#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The image's name
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) name: String,
    /// Show the name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The platform of the image [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub(crate) platform: Option<Platform>,
    /// Let plain http and unknown certificates do
    #[arg(long)]
    pub(crate) insecure: bool,
    #[arg(long, hide = true)]
    pub(crate) disable_content_trust: bool,
}

/// `larder login`
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// The registry's host [default: Docker Hub]
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    pub(crate) server: String,
    /// The user's name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// The password; others on this machine may see it
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// Let plain http and unknown certificates do
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// `larder logout`
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// The registry's host [default: Docker Hub]
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    pub(crate) server: String,
}
