//! Running a stored image in the foreground.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use larder_exec::mount::{self, Access};
use larder_exec::{MountPoint, MountSource, Network, Outcome, ProcessSpec, Stdio};
use larder_store::{NewSnapshot, RecordType};
use larder_tree::beneath::Root;
use larder_tree::users;

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::images::Images;
use crate::ops;
use crate::progress::Reporter;

/// A container to run.
pub struct RunRequest {
    /// The image: a name, an id, or the beginning of an id.
    pub image: String,
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

impl Engine {
    /// Runs a container to its end, in the host's network, and returns its exit code: 128 and the
    /// signal if one ended it. Its file system is dropped.
    ///
    /// # Errors
    /// When the image does not exist, or the process can't be started.
    pub fn run(&self, request: RunRequest, cancel: &CancelFlag) -> Result<i32> {
        let lease = self.store.lease()?;
        let info = self.store.resolve_image(&request.image)?;
        let image_ref = format!("image@{}", info.manifest.digest)
            .parse()
            .map_err(|error| BuildError::internal("a digest is no reference").with_source(error))?;
        let images = Images::new(self, &lease, false);
        let image = images.resolve(&image_ref, &larder_oci::Platform::host())?;
        let clock = || self.now();
        let silent = |_event| {};
        let reporter = Reporter::new(&silent, &clock);
        let progress = reporter.begin_internal("run", "");
        let snapshot = ops::image::pull(self, &lease, &image, &progress, cancel)?;
        let description = format!("container of {}", request.image);
        let new = NewSnapshot {
            parent: Some(&snapshot),
            description: &description,
            record_type: RecordType::Regular,
        };
        let active = lease.prepare(&new)?;
        let root = mount::open(&active.mount()?)?;
        let spec = spec(request, &image.config.config, root)?;
        let process = larder_exec::Cancel::new()?;
        cancel.ends(&process);
        let watch = lease.watch([&active], [])?;
        let exit = ops::exec::watch::run(watch, &process, || {
            larder_exec::run(spec, &mut |_, _| {}, &process)
        });
        let exit = exit.map_err(|error| error.context("the container was stopped"))??;
        drop(active);
        lease.release()?;
        match exit.outcome {
            Outcome::Exited(code) => Ok(code),
            Outcome::Signaled(signal) => Ok(128 + signal),
            Outcome::Canceled => Err(BuildError::canceled()),
        }
    }
}

fn spec(
    request: RunRequest,
    config: &larder_oci::ContainerConfig,
    root: OwnedFd,
) -> Result<ProcessSpec> {
    let args = args(&request, config)?;
    let tree = Root::from_fd(root.try_clone().map_err(|source| {
        BuildError::new(ErrorClass::Exhausted, "cannot copy a descriptor").with_source(source)
    })?);
    let user = users::resolve_user(&tree, request.user.as_deref().unwrap_or(&config.user))?;
    let mut env = config.env.clone();
    for variable in request.env {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        env.retain(|known| known.split('=').next() != Some(name.as_str()));
        env.push(variable);
    }
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let mut volumes = request.volumes;
    for target in config.volumes.keys() {
        if !volumes.iter().any(|volume| volume.target == *target) {
            volumes.push(Volume {
                source: None,
                target: target.clone(),
                readonly: false,
            });
        }
    }
    let mut mounts = volumes
        .into_iter()
        .map(|volume| volume_mount(volume, &root))
        .collect::<Result<Vec<_>>>()?;
    if request.host_ca {
        ops::host::lend(&mut env, &mut mounts, &|name| std::env::var(name).ok())?;
    }
    let workdir = request
        .workdir
        .unwrap_or_else(|| config.working_dir.clone());
    let [stdin, stdout, stderr] = request.stdio;
    Ok(ProcessSpec {
        env,
        cwd: if workdir.is_empty() {
            "/".to_owned()
        } else {
            workdir
        },
        user: ops::exec::process_user(user),
        mounts,
        network: Network::Host,
        resolv_conf: larder_exec::resolv_conf(Network::Host, &larder_exec::DnsConfig::default()),
        signals: request.signals,
        stdio: Stdio::Files {
            stdin,
            stdout,
            stderr,
        },
        ..ProcessSpec::new(root, args)
    })
}

fn args(request: &RunRequest, config: &larder_oci::ContainerConfig) -> Result<Vec<String>> {
    let mut args = request
        .entrypoint
        .clone()
        .or_else(|| config.entrypoint.clone())
        .unwrap_or_default();
    // A new entry point takes the image's arguments away.
    match (&request.args[..], &request.entrypoint) {
        ([], None) => args.extend(config.cmd.iter().flatten().cloned()),
        (own, _) => args.extend_from_slice(own),
    }
    if args.is_empty() {
        return Err(
            BuildError::invalid(format!("image `{}` has no command", request.image))
                .with_hint("give one after the image's name"),
        );
    }
    Ok(args)
}

fn volume_mount(volume: Volume, root: &OwnedFd) -> Result<MountPoint> {
    let access = if volume.readonly {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let fd = if let Some(source) = &volume.source {
        if !source.exists() {
            std::fs::create_dir_all(source).map_err(|error| {
                BuildError::invalid(format!("cannot make the directory `{}`", source.display()))
                    .with_source(error)
            })?;
        }
        mount::bind(source, access)?
    } else {
        // What the image has there lies in the container's own tree, which goes with it.
        let attributes = larder_tree::beneath::DirAttributes {
            mode: 0o755,
            owner: None,
            time: None,
        };
        let tree = Root::from_fd(root.try_clone().map_err(|source| {
            BuildError::new(ErrorClass::Exhausted, "cannot copy a descriptor").with_source(source)
        })?);
        tree.create_dir_all(&volume.target, attributes)?;
        mount::bind_beneath(root.as_fd(), &volume.target, access)?
    };
    Ok(MountPoint {
        target: volume.target,
        source: MountSource::Bind(fd),
        readonly: volume.readonly,
    })
}
