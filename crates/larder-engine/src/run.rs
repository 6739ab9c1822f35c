//! Running a stored image in the foreground.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use larder_oci::Platform;

use crate::cancel::CancelFlag;
use crate::container::{ContainerMount, ContainerRequest, ContainerSource, ProcessRequest};
use crate::engine::Engine;
use crate::error::Result;

/// A container to run.
pub struct RunRequest {
    /// The image: a name, an id, or the beginning of an id.
    pub image: String,
    /// Of an index, which image; by default the one that stands for all.
    pub platform: Option<Platform>,
    /// The arguments, in place of the image's CMD; empty for that.
    pub args: Vec<String>,
    /// The command, in place of the image's ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// Variables, each `NAME=value`, over those of the image.
    pub env: Vec<String>,
    /// The working directory, in place of the image's.
    pub workdir: Option<String>,
    /// The user, in place of the image's.
    pub user: Option<String>,
    /// Directories to mount.
    pub volumes: Vec<Volume>,
    /// Whether the host's CA certificates and proxy settings are lent.
    pub host_ca: bool,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// The reading end of a pipe: each byte in it is the number of a signal for the process.
    pub signals: Option<OwnedFd>,
}

/// A directory that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The directory of the host; `None` for an anonymous one: what the image has there, and gone
    /// with the container.
    pub source: Option<PathBuf>,
    /// Where it is seen.
    pub target: String,
    /// Whether it can't be written.
    pub readonly: bool,
}

impl From<Volume> for ContainerMount {
    fn from(volume: Volume) -> Self {
        let source = match volume.source {
            Some(path) => ContainerSource::Host { path, create: true },
            None => ContainerSource::Anonymous,
        };
        Self {
            source,
            target: volume.target,
            readonly: volume.readonly,
        }
    }
}

impl Engine {
    /// Runs a container to its end, in the host's network, and returns its exit code: 128 and the
    /// signal if one ended it. Its file system is dropped.
    ///
    /// # Errors
    /// When the image does not exist, or the process can't be started.
    pub fn run(&self, request: RunRequest, cancel: &CancelFlag) -> Result<i32> {
        let container = self.container(
            ContainerRequest {
                image: request.image,
                platform: request.platform,
                env: request.env,
                workdir: request.workdir,
                user: request.user,
                mounts: request.volumes.into_iter().map(Into::into).collect(),
                host_ca: request.host_ca,
                ..ContainerRequest::default()
            },
            cancel,
        )?;
        let args = (!request.args.is_empty()).then_some(&request.args[..]);
        let process = ProcessRequest {
            args: container.command(request.entrypoint.as_deref(), args)?,
            stdio: request.stdio,
            signals: request.signals,
        };
        container.run(process, cancel)
    }
}
