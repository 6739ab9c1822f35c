//! Containers: an image's tree of their own, with volumes, in which processes run.

mod volumes;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use larder_exec::mount::{self, Access};
use larder_exec::{ExtraHost, MountPoint, MountSource, Network, Outcome, ProcessSpec, Stdio};
use larder_oci::{ContainerConfig, Platform};
use larder_store::{ActiveSnapshot, Lease, NewSnapshot, RecordType};
use larder_tree::beneath::{DirAttributes, Root};
use larder_tree::users;

use crate::cancel::CancelFlag;
use crate::emulation;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::{Fetcher, Origin};
use crate::images::read_meant;
use crate::network::{HOST_GATEWAY, LOOPBACK};
use crate::ops;
use crate::progress::Reporter;
use crate::request::{SecretBytes, Ulimit};

pub use volumes::VolumeName;

/// A container to make.
#[derive(Debug, Default)]
pub struct ContainerRequest {
    /// The image: a name, an id, or the beginning of an id.
    pub image: String,
    /// Of an index, which image; by default the one that stands for all.
    pub platform: Option<Platform>,
    /// Variables, each `NAME=value`, over those of the image.
    pub env: Vec<String>,
    /// The working directory, in place of the image's.
    pub workdir: Option<String>,
    /// The user, in place of the image's.
    pub user: Option<String>,
    /// The host's name inside.
    pub hostname: Option<String>,
    /// What is mounted. What lies in another mount comes after it.
    pub mounts: Vec<ContainerMount>,
    /// Further lines of `/etc/hosts`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// The size of `/dev/shm`.
    pub shm_size_bytes: Option<u64>,
    /// Whether the host's CA certificates and proxy settings are lent.
    pub host_ca: bool,
}

/// Something that a container sees at a path.
#[derive(Debug, Clone)]
pub struct ContainerMount {
    /// What.
    pub source: ContainerSource,
    /// Where it is seen; absolute.
    pub target: String,
    /// Whether it can't be written.
    pub readonly: bool,
}

/// What a [`ContainerMount`] shows.
#[derive(Debug, Clone)]
pub enum ContainerSource {
    /// What the image has there; it goes with the container, and lies over what is mounted below
    /// it.
    Anonymous,
    /// A directory or file of the host.
    Host {
        /// The path.
        path: PathBuf,
        /// Whether a directory is made where nothing is.
        create: bool,
    },
    /// A volume of the state directory, made if absent.
    Volume {
        /// Its name.
        name: VolumeName,
        /// Whether a new one begins with what the image has there.
        copy: bool,
    },
    /// An empty directory in memory.
    Memory {
        /// Its size; half of the memory by default.
        size_bytes: Option<u64>,
    },
    /// A file in memory.
    File {
        /// Its bytes.
        content: SecretBytes,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// A process to run in a container.
pub struct ProcessRequest {
    /// The command. See [`Container::command`] for that of the image.
    pub args: Vec<String>,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// The reading end of a pipe: each byte in it is the number of a signal for the process.
    pub signals: Option<OwnedFd>,
}

/// A container. Its tree is dropped with it.
pub struct Container {
    /// A mount of the tree that is given to no process.
    root: Mutex<Option<OwnedFd>>,
    request: ContainerRequest,
    config: ContainerConfig,
    platform: Platform,
    volumes: PathBuf,
    /// Fields are dropped in order: the tree's mounts before the tree, that before its lease.
    active: ActiveSnapshot,
    lease: Lease,
}

impl Engine {
    /// Makes a container.
    ///
    /// # Errors
    /// When the image does not exist, or something to mount does not.
    pub fn container(&self, request: ContainerRequest, cancel: &CancelFlag) -> Result<Container> {
        let lease = self.store.lease()?;
        let info = self.store.resolve_image(&request.image)?;
        let image = read_meant(&lease, &info, &request.image, request.platform.as_ref())
            .map_err(|error| error.context(format!("cannot run image `{}`", request.image)))?;
        let clock = || self.now();
        let silent = |_event| {};
        let reporter = Reporter::new(&silent, &clock);
        let progress = reporter.begin_internal("run", "");
        let fetcher = Fetcher::new(self, &lease, &progress, cancel);
        let unpacked = format!("unpacked for {}", request.image);
        let snapshot = ops::image::unpack(&fetcher, &image, &Origin::Noted, &unpacked)
            .map_err(|error| error.context(format!("cannot unpack image `{}`", request.image)))?;
        let description = format!("container of {}", request.image);
        let new = NewSnapshot {
            parent: Some(&snapshot),
            description: &description,
            record_type: RecordType::Regular,
        };
        let active = lease.prepare(&new)?;
        let root = mount::open(&active.mount()?)?;
        let container = Container {
            root: Mutex::new(Some(root)),
            request,
            config: image.config.config.clone(),
            platform: image.config.platform(),
            volumes: self.volumes_directory(),
            active,
            lease,
        };
        container.fill_volumes()?;
        Ok(container)
    }
}

impl Container {
    /// Returns the command that runs by default: `args` after the entry point, either in place of
    /// the image's if given. A new entry point takes the image's arguments away.
    ///
    /// # Errors
    /// When nothing is left to run.
    pub fn command(
        &self,
        entrypoint: Option<&[String]>,
        args: Option<&[String]>,
    ) -> Result<Vec<String>> {
        let of_image = self.config.entrypoint.as_deref();
        let mut command = entrypoint.or(of_image).unwrap_or_default().to_vec();
        match (args, entrypoint) {
            (Some(args), _) => command.extend_from_slice(args),
            (None, None) => command.extend(self.config.cmd.iter().flatten().cloned()),
            (None, Some(_)) => {}
        }
        if command.is_empty() {
            let image = &self.request.image;
            return Err(
                BuildError::invalid(format!("image `{image}` has no command"))
                    .with_hint("give one after the image's name"),
            );
        }
        Ok(command)
    }

    /// Returns the config of the image.
    pub fn config(&self) -> &ContainerConfig {
        &self.config
    }

    /// Runs a process to its end, in the host's network, and returns its exit code: 128 and the
    /// signal if one ended it. Several may run at once; each sees its own processes only.
    ///
    /// # Errors
    /// When the process can't be started. Of class
    /// [`Canceled`](crate::ErrorClass::Canceled) when `cancel` ended it.
    pub fn run(&self, request: ProcessRequest, cancel: &CancelFlag) -> Result<i32> {
        let spec = self.spec(request)?;
        let process = larder_exec::Cancel::new()?;
        cancel.ends(&process);
        let watch = self.lease.watch([&self.active], [])?;
        let exit = ops::exec::watch::run(watch, &process, || {
            larder_exec::run(spec, &mut |_, _| {}, &process)
        });
        let exit = exit.map_err(|error| error.context("the container was stopped"))?;
        let exit = exit.map_err(|error| match error.kind() {
            larder_exec::ErrorKind::Command => emulation::explain(error.into(), &self.platform),
            _ => BuildError::from(error),
        })?;
        match exit.outcome {
            Outcome::Exited(code) => Ok(code),
            Outcome::Signaled(signal) => Ok(128 + signal),
            Outcome::Canceled => Err(BuildError::canceled()),
        }
    }

    /// Returns another mount of the tree.
    fn root(&self) -> Result<OwnedFd> {
        let mut kept = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = || BuildError::internal("the tree of a container is lost");
        let (keep, give) = mount::split(kept.take().ok_or_else(lost)?)?;
        *kept = Some(keep);
        Ok(give)
    }

    /// Returns the tree, to work in it.
    fn tree(&self) -> Result<Root> {
        Ok(Root::from_fd(self.root()?))
    }

    fn spec(&self, process: ProcessRequest) -> Result<ProcessSpec> {
        let (request, config) = (&self.request, &self.config);
        let name = request.user.as_deref().unwrap_or(&config.user);
        let user = users::resolve_user(&self.tree()?, name)?;
        let mut env = config.env.clone();
        for variable in &request.env {
            let name = variable.split('=').next();
            env.retain(|known| known.split('=').next() != name);
            env.push(variable.clone());
        }
        if !env.iter().any(|variable| variable.starts_with("HOME=")) {
            env.push(format!("HOME={}", user.home));
        }
        let mut mounts = self.mounts()?;
        mounts.extend(emulation::interpreter(&self.platform)?);
        if request.host_ca {
            ops::host::lend(&mut env, &mut mounts, &|name| std::env::var(name).ok())?;
        }
        let workdir = request.workdir.as_ref().unwrap_or(&config.working_dir);
        let [stdin, stdout, stderr] = process.stdio;
        let mut spec = ProcessSpec {
            env,
            cwd: match workdir.as_str() {
                "" => "/".to_owned(),
                workdir => workdir.to_owned(),
            },
            user: ops::exec::process_user(user),
            mounts,
            network: Network::Host,
            resolv_conf: larder_exec::resolv_conf(
                &Network::Host,
                &larder_exec::DnsConfig::default(),
            ),
            extra_hosts: request
                .extra_hosts
                .iter()
                .map(|(name, ip)| ExtraHost {
                    ip: match ip.as_str() {
                        HOST_GATEWAY => LOOPBACK.to_owned(),
                        _ => ip.clone(),
                    },
                    name: name.clone(),
                })
                .collect(),
            ulimits: request
                .ulimits
                .iter()
                .map(|limit| larder_exec::Ulimit {
                    name: limit.name.to_lowercase(),
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            signals: process.signals,
            stdio: Stdio::Files {
                stdin,
                stdout,
                stderr,
            },
            ..ProcessSpec::new(self.root()?, process.args)
        };
        if let Some(hostname) = &request.hostname {
            spec.hostname.clone_from(hostname);
        }
        if let Some(size) = request.shm_size_bytes {
            spec.shm_bytes = size;
        }
        Ok(spec)
    }

    /// Returns the mounts that were asked for, and those that the image asks for.
    fn mounts(&self) -> Result<Vec<MountPoint>> {
        let own = &self.request.mounts;
        let of_image = self.config.volumes.keys();
        let of_image = of_image.filter(|target| own.iter().all(|mount| mount.target != **target));
        let of_image = of_image.map(|target| ContainerMount {
            source: ContainerSource::Anonymous,
            target: target.clone(),
            readonly: false,
        });
        let mounts = own.iter().cloned().chain(of_image);
        mounts.map(|mount| self.mount(mount)).collect()
    }

    fn mount(&self, mount: ContainerMount) -> Result<MountPoint> {
        let access = if mount.readonly {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let source = match &mount.source {
            ContainerSource::Anonymous => MountSource::Bind(self.anonymous(&mount.target, access)?),
            ContainerSource::Host { path, create } => {
                if !path.exists() {
                    let shown = path.display();
                    if !create {
                        return Err(BuildError::new(
                            ErrorClass::NotFound,
                            format!("bind source path does not exist: `{shown}`"),
                        ));
                    }
                    fs_err::create_dir_all(path).map_err(|error| {
                        BuildError::invalid(format!("cannot make the directory `{shown}`"))
                            .with_source(error)
                    })?;
                }
                MountSource::Bind(mount::bind(path, access)?)
            }
            ContainerSource::Volume { name, .. } => {
                MountSource::Bind(mount::bind(name.directory(&self.volumes), access)?)
            }
            ContainerSource::Memory { size_bytes } => MountSource::Tmpfs {
                size_bytes: *size_bytes,
            },
            ContainerSource::File {
                content,
                mode,
                uid,
                gid,
            } => MountSource::Secret {
                content: content.expose().to_vec(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
        };
        Ok(MountPoint {
            target: mount.target,
            source,
            readonly: mount.readonly,
        })
    }

    /// Returns a mount of what the container's own tree has at a path, which goes with it.
    fn anonymous(&self, target: &str, access: Access) -> Result<OwnedFd> {
        let attributes = DirAttributes {
            mode: 0o755,
            owner: None,
            time: None,
        };
        self.tree()?.create_dir_all(target, attributes)?;
        let root = self.root()?;
        Ok(mount::bind_beneath(root.as_fd(), target, access)?)
    }
}
