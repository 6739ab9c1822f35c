//! The flags of `larder doctor`.

use std::path::PathBuf;

/// `larder doctor`
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Directory with Dockerfiles, a compose file, or both
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
    /// Only this Dockerfile
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// `text` or `json`
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    pub(crate) format: String,
}
