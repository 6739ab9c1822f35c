//! RUN: one process over a fresh snapshot.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use larder_exec::mount::{self, Access};
use larder_exec::rootless::{self, IdMap};
use larder_exec::{
    DnsConfig, ExtraHost, MountPoint, MountSource, Network, Outcome, ProcessSpec, Security, Stream,
};
use larder_llb::cache_map::platform_of;
use larder_llb::{Vertex, pb};
use larder_oci::Platform;
use larder_store::{
    ActiveSnapshot, CacheMountGuard, CacheMountRequest, NewSnapshot, RecordType, Sharing,
    SnapshotId, Watch,
};
use larder_tree::beneath::Root;
use larder_tree::quota::Quota;
use larder_tree::users;

use crate::cancel::CancelFlag;
use crate::emulation;
use crate::error::{BuildError, ErrorClass, Result};
use crate::event::LogStream;
use crate::network::{HOST_GATEWAY, LOOPBACK};
use crate::ops::host;
use crate::ops::ssh::{self, AgentSocket};
use crate::progress::VertexProgress;
use crate::solve::WorkError;
use crate::worker::{BuildWorker, ResultRef};

mod limits;
pub(crate) mod watch;

/// Where the root filesystem is mounted.
const ROOT: &str = "/";
/// BuildKit's `PATH` for steps that have none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// BuildKit's bound on the size of a secret.
const MAX_SECRET_BYTES: usize = 500 << 10;

/// Runs the process of `exec`. Returns a result for each of `outputs`.
pub(crate) fn run(
    worker: &BuildWorker<'_>,
    vertex: &Vertex,
    exec: &pb::ExecOp,
    outputs: &[usize],
    inputs: &[ResultRef],
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<Vec<ResultRef>, WorkError> {
    let platform = vertex.op.platform.as_ref();
    let platform = platform.map_or_else(Platform::host, platform_of);
    let meta = exec.meta.clone().unwrap_or_default();
    let mut step = Step {
        worker,
        inputs,
        args: meta.args.join(" "),
        active: HashMap::new(),
        held: Vec::new(),
    };
    let (root, mut mounts) = step.mounts(exec, &meta.cwd, progress, cancel)?;
    mounts.extend(emulation::interpreter(&platform)?);
    let mut spec = step.spec(exec, &meta, root, mounts, progress)?;
    let limits = limits::of(vertex.metadata.linux_resources.as_ref());
    spec.limits = limits.clone();
    let process = larder_exec::Cancel::new().map_err(BuildError::from)?;
    cancel.ends(&process);
    let mut output = |stream: Stream, bytes: &[u8]| {
        let stream = match stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        progress.log(stream, bytes);
    };
    let watch = step.watch().map_err(BuildError::from)?;
    let exit = watch::run(watch, &process, || {
        larder_exec::run(spec, &mut output, &process)
    });
    step.held.clear();
    let exit = exit
        .map_err(|error| error.context(format!("process {:?} was stopped", meta.args.join(" "))))?;
    let exit = exit.map_err(|error| match error.kind() {
        larder_exec::ErrorKind::Command => {
            progress.log(LogStream::Stderr, format!("{error}\n").as_bytes());
            emulation::explain(failed_process(&meta, "exit code: 1"), &platform)
        }
        _ => BuildError::from(error),
    })?;
    for unmet in &exit.unmet {
        progress.warn(format!("not limited: {unmet}"));
    }
    let died = |code: i32| {
        let memory = if exit.oom_killed {
            limits::out_of_memory(&limits)
        } else {
            String::new()
        };
        failed_process(&meta, &format!("exit code: {code}{memory}"))
    };
    match exit.outcome {
        Outcome::Canceled => return Err(BuildError::canceled().into()),
        Outcome::Exited(code) if is_success(code, &meta.valid_exit_codes) => {}
        Outcome::Exited(code) => {
            return Err(died(code).into());
        }
        // A shell reports a signal this way, and so do BuildKit's runtimes.
        Outcome::Signaled(signal) => {
            return Err(died(128 + signal).into());
        }
    }
    step.commit(exec, outputs)
}

fn is_success(code: i32, valid: &[i32]) -> bool {
    if valid.is_empty() {
        code == 0
    } else {
        valid.contains(&code)
    }
}

fn failed_process(meta: &pb::Meta, how: &str) -> BuildError {
    let args = meta.args.join(" ");
    BuildError::new(
        ErrorClass::Step,
        format!("process {args:?} did not complete successfully: {how}"),
    )
}

/// A RUN step in the making.
struct Step<'a> {
    worker: &'a BuildWorker<'a>,
    inputs: &'a [ResultRef],
    args: String,
    /// Writable snapshots, by mount.
    active: HashMap<usize, ActiveSnapshot>,
    /// What must live until the process has ended: cache mounts, and trees bound read-write whose
    /// changes are dropped.
    held: Vec<Held>,
}

enum Held {
    #[expect(dead_code, reason = "it serves as long as it lives")]
    Agent(AgentSocket),
    Cache(CacheMountGuard),
    Discarded(ActiveSnapshot),
}

impl Step<'_> {
    /// Returns what is to be looked after while the process writes.
    fn watch(&self) -> larder_store::Result<Option<Watch>> {
        let mut snapshots: Vec<&ActiveSnapshot> = self.active.values().collect();
        let mut mounts = Vec::new();
        for held in &self.held {
            match held {
                Held::Agent(_) => {}
                Held::Cache(guard) => mounts.push(guard),
                Held::Discarded(active) => snapshots.push(active),
            }
        }
        self.worker.lease.watch(snapshots, mounts)
    }

    /// Returns the root, and the other mounts in the op's order.
    fn mounts(
        &mut self,
        exec: &pb::ExecOp,
        cwd: &str,
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<(OwnedFd, Vec<MountPoint>), WorkError> {
        let mut caches = self.caches(exec, progress, cancel)?;
        let mut root = None;
        let mut mounts = Vec::new();
        for (position, mount) in exec.mounts.iter().enumerate() {
            if mount.dest == ROOT {
                root = Some(self.bind(position, mount)?);
                continue;
            }
            let source = match mount.mount_type() {
                pb::MountType::Bind => MountSource::Bind(self.bind(position, mount)?),
                pb::MountType::Cache => match caches.pop_front() {
                    Some(cache) => MountSource::Bind(cache),
                    None => continue,
                },
                pb::MountType::Tmpfs => {
                    let size = mount.tmpfs_opt.as_ref().map_or(0, |tmpfs| tmpfs.size);
                    MountSource::Tmpfs {
                        size_bytes: u64::try_from(size).ok().filter(|&size| size > 0),
                    }
                }
                pb::MountType::Secret => match self.secret(mount)? {
                    Some(secret) => secret,
                    None => continue,
                },
                pb::MountType::Ssh => match self.agent(mount)? {
                    Some(socket) => socket,
                    None => continue,
                },
            };
            mounts.push(MountPoint {
                target: target(cwd, &mount.dest),
                source,
                readonly: mount.readonly,
            });
        }
        // What lies in another mount comes after it.
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        let root = root.ok_or_else(|| BuildError::invalid("a step has no root filesystem"))?;
        Ok((root, mounts))
    }

    /// Returns a mount of an input, or of an empty tree.
    fn bind(&mut self, position: usize, mount: &pb::Mount) -> Result<OwnedFd, WorkError> {
        let input = usize::try_from(mount.input).ok();
        // Mount points are made in the root filesystem even if the process can't write to it.
        let writable = !mount.readonly || mount.dest == ROOT;
        let whole = match input {
            Some(input) if !writable => self
                .worker
                .open_view(&self.inputs[input])
                .map_err(|error| lost(input, error))?,
            _ => {
                let parent = match input {
                    Some(input) => Some(
                        self.worker
                            .snapshot_of(&self.inputs[input])
                            .map_err(|error| lost(input, error))?,
                    ),
                    None => None,
                };
                let description = format!("mount {} from exec {}", mount.dest, self.args);
                let active = self
                    .worker
                    .lease
                    .prepare(&NewSnapshot {
                        parent: parent.as_ref(),
                        description: &description,
                        record_type: RecordType::Regular,
                    })
                    .map_err(BuildError::from)?;
                let fd = mount::open(&active.mount().map_err(BuildError::from)?)
                    .map_err(BuildError::from)?;
                if mount.output >= 0 {
                    self.active.insert(position, active);
                } else {
                    self.held.push(Held::Discarded(active));
                }
                fd
            }
        };
        Ok(select(whole, &mount.selector, writable)?)
    }

    /// Acquires the cache mounts of the step, all at once; returns their mounts in the op's order.
    fn caches(
        &mut self,
        exec: &pb::ExecOp,
        progress: &VertexProgress<'_>,
        cancel: &CancelFlag,
    ) -> Result<VecDeque<OwnedFd>, WorkError> {
        let is_cache = |mount: &&pb::Mount| mount.mount_type() == pb::MountType::Cache;
        let wanted: Vec<&pb::Mount> = exec.mounts.iter().filter(is_cache).collect();
        let mut seeds = Vec::with_capacity(wanted.len());
        for mount in &wanted {
            seeds.push(match usize::try_from(mount.input).ok() {
                Some(input) => Some(
                    self.worker
                        .snapshot_of(&self.inputs[input])
                        .map_err(|error| lost(input, error))?,
                ),
                None => None,
            });
        }
        let options: Vec<pb::CacheOpt> = wanted
            .iter()
            .map(|mount| mount.cache_opt.clone().unwrap_or_default())
            .collect();
        let description = |mount: &pb::Mount, id: &str| {
            format!(
                "cached mount {} from exec {} with id {id:?}",
                mount.dest, self.args
            )
        };
        let descriptions: Vec<String> = wanted
            .iter()
            .zip(&options)
            .map(|(mount, option)| description(mount, &option.id))
            .collect();
        let worker = self.worker;
        let fills: Vec<_> = seeds
            .iter()
            .map(|seed| {
                seed.as_ref().map(|seed| {
                    move |root: &Root, quota: &dyn Quota| worker.copy_out(seed, root, quota)
                })
            })
            .collect();
        let requests: Vec<CacheMountRequest<'_>> = options
            .iter()
            .enumerate()
            .map(|(position, option)| CacheMountRequest {
                name: &option.id,
                seed: seeds[position].as_ref().map_or("", SnapshotId::as_str),
                sharing: match option.sharing() {
                    pb::CacheSharingOpt::Shared => Sharing::Shared,
                    pb::CacheSharingOpt::Private => Sharing::Private,
                    pb::CacheSharingOpt::Locked => Sharing::Locked,
                },
                description: &descriptions[position],
                owner: None,
                mode: 0o755,
                fill: fills[position].as_ref().map(|fill| fill as _),
            })
            .collect();
        let waiting = || progress.warn("waiting for a cache mount that another step has locked");
        let guards = self
            .worker
            .lease
            .acquire_cache_mounts(&requests, &|| cancel.is_set(), &waiting)
            .map_err(BuildError::from)?;
        drop(requests);
        drop(fills);
        let mut mounts = VecDeque::with_capacity(guards.len());
        for (guard, mount) in guards.into_iter().zip(wanted) {
            let fd = mount::open(&guard.mount()).map_err(BuildError::from)?;
            self.held.push(Held::Cache(guard));
            mounts.push_back(select(fd, &mount.selector, !mount.readonly)?);
        }
        Ok(mounts)
    }

    /// Returns the mount of a secret; `None` for one that is optional and not there.
    fn secret(&self, mount: &pb::Mount) -> Result<Option<MountSource>> {
        let option = mount.secret_opt.clone().unwrap_or_default();
        let Some(content) = self.secret_bytes(&option.id, option.optional)? else {
            return Ok(None);
        };
        Ok(Some(MountSource::Secret {
            content,
            mode: option.mode & 0o777,
            uid: option.uid,
            gid: option.gid,
        }))
    }

    /// Returns the mount of an agent's socket; `None` for one that is optional and not there.
    fn agent(&mut self, mount: &pb::Mount) -> Result<Option<MountSource>> {
        let option = mount.ssh_opt.clone().unwrap_or_default();
        let id = match option.id.as_str() {
            "" => "default",
            id => id,
        };
        let agent = if option.optional {
            ssh::find(self.worker.ssh, id)?
        } else {
            Some(ssh::required(self.worker.ssh, id)?)
        };
        let Some(agent) = agent else {
            return Ok(None);
        };
        let owner = (option.uid, option.gid);
        let socket = AgentSocket::serve(agent, owner, option.mode & 0o777)?;
        let source = MountSource::Bind(socket.mount()?);
        self.held.push(Held::Agent(socket));
        Ok(Some(source))
    }

    fn secret_bytes(&self, id: &str, optional: bool) -> Result<Option<Vec<u8>>> {
        let secret = self.worker.secrets.secret(id).map_err(|source| {
            BuildError::new(ErrorClass::NotFound, format!("cannot read secret {id}"))
                .with_source(source)
        })?;
        match secret {
            None if optional => Ok(None),
            None => Err(host::missing_secret(id)),
            Some(secret) if secret.expose().len() > MAX_SECRET_BYTES => Err(BuildError::invalid(
                format!("secret {id} is larger than 500 KiB"),
            )),
            Some(secret) => Ok(Some(secret.expose().to_vec())),
        }
    }

    fn spec(
        &self,
        exec: &pb::ExecOp,
        meta: &pb::Meta,
        root: OwnedFd,
        mut mounts: Vec<MountPoint>,
        progress: &VertexProgress<'_>,
    ) -> Result<ProcessSpec> {
        let tree = Root::from_fd(root.try_clone().map_err(|source| {
            BuildError::new(ErrorClass::Exhausted, "cannot copy a descriptor").with_source(source)
        })?);
        let user = users::resolve_user(&tree, &meta.user)?;
        let mut env = meta.env.clone();
        if !has_variable(&env, "PATH") {
            env.push(DEFAULT_PATH.to_owned());
        }
        if !has_variable(&env, "HOME") {
            env.push(format!("HOME={}", user.home));
        }
        for secret in &exec.secretenv {
            // One that is not there is an empty one, as in BuildKit.
            let bytes = self.secret_bytes(&secret.id, secret.optional)?;
            let value = String::from_utf8(bytes.unwrap_or_default()).map_err(|_| {
                BuildError::invalid(format!(
                    "secret {} is not text, and can't be a variable",
                    secret.id
                ))
            })?;
            env.push(format!("{}={value}", secret.name));
        }
        if let Some(proxies) = &meta.proxy_env {
            host::set_proxies(&mut env, proxies);
        }
        if self.worker.host_ca {
            host::lend(&mut env, &mut mounts, self.worker.variables)?;
        }
        let devices = self.worker.granted.resolve(exec)?;
        let devices = self.worker.granted.devices().edits(&devices)?;
        for variable in devices.env {
            let name = variable.split('=').next();
            env.retain(|known| known.split('=').next() != name);
            env.push(variable);
        }
        mounts.extend(devices.mounts);
        let mut user = process_user(user);
        user.groups.extend(devices.groups);
        let security = Self::security(exec, progress);
        let network = self.network(exec, meta, progress)?;
        let extra_hosts = extra_hosts(meta, &network)?;
        let hostname = if meta.hostname.is_empty() {
            ProcessSpec::HOSTNAME.to_owned()
        } else {
            meta.hostname.clone()
        };
        Ok(ProcessSpec {
            env,
            cwd: if meta.cwd.is_empty() {
                "/".to_owned()
            } else {
                meta.cwd.clone()
            },
            user,
            hostname,
            mounts,
            security,
            devices: devices.nodes,
            ulimits: meta
                .ulimit
                .iter()
                .map(|limit| larder_exec::Ulimit {
                    name: limit.name.to_lowercase(),
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            extra_hosts,
            resolv_conf: larder_exec::resolv_conf(&network, &DnsConfig::default()),
            network,
            cgroup_parent: (!meta.cgroup_parent.is_empty()).then(|| meta.cgroup_parent.clone()),
            readonly_root: exec
                .mounts
                .iter()
                .any(|mount| mount.dest == ROOT && mount.readonly),
            ..ProcessSpec::new(root, meta.args.clone())
        })
    }

    /// Returns how the step is confined. Without root, what it means not to be is told.
    fn security(exec: &pb::ExecOp, progress: &VertexProgress<'_>) -> Security {
        if exec.security() == pb::SecurityMode::Sandbox {
            return Security::Sandbox;
        }
        if rootless::id_map() != IdMap::Full {
            progress.warn(
                "`--security=insecure` without root: the step may do all that the user may, in a \
                 user namespace; it can't make devices or change the machine",
            );
        }
        Security::Insecure
    }

    /// Returns the network that the step asks for, else what larder chooses.
    fn network(
        &self,
        exec: &pb::ExecOp,
        meta: &pb::Meta,
        progress: &VertexProgress<'_>,
    ) -> Result<Network> {
        match exec.network() {
            pb::NetMode::None => Ok(Network::None),
            pb::NetMode::Host => Ok(Network::Host),
            pb::NetMode::Unset => {
                let mut hosts = meta.extra_hosts.iter();
                let reaches_host = hosts.any(|host| host.ip == HOST_GATEWAY);
                let worker = self.worker;
                let lent = worker.host_ca.then_some(worker.variables);
                let tell = |text| progress.status_done(text);
                worker.networks.acquire(reaches_host, lent, tell)
            }
        }
    }

    /// Commits what is asked for, in the order of `outputs`.
    fn commit(mut self, exec: &pb::ExecOp, outputs: &[usize]) -> Result<Vec<ResultRef>, WorkError> {
        let mut results = Vec::with_capacity(outputs.len());
        for &output in outputs {
            let position = larder_llb::output_mounts(exec).nth(output);
            let position = position
                .ok_or_else(|| BuildError::invalid(format!("a step has no output {output}")))?;
            let result = match self.active.remove(&position) {
                Some(active) => BuildWorker::commit(active)?,
                // What is read-only comes out as it went in.
                None => match usize::try_from(exec.mounts[position].input) {
                    Ok(input) => self.inputs[input].clone(),
                    Err(_) => {
                        return Err(
                            BuildError::invalid("an empty read-only mount has no output").into(),
                        );
                    }
                },
            };
            results.push(result);
        }
        Ok(results)
    }
}

/// Returns the extra lines of `/etc/hosts`.
fn extra_hosts(meta: &pb::Meta, network: &Network) -> Result<Vec<ExtraHost>> {
    let line = |host: &pb::HostIp| {
        let ip = match network {
            _ if host.ip != HOST_GATEWAY => host.ip.as_str(),
            Network::Own(own) => own.host_gateway().ok_or_else(|| {
                let name = &host.host;
                BuildError::invalid(format!(
                    "`--add-host {name}:{HOST_GATEWAY}`: the host has no gateway that could stand for it"
                ))
                .with_hint("use `--network=host`, where it is 127.0.0.1")
            })?,
            Network::Host | Network::None => LOOPBACK,
        };
        Ok(ExtraHost {
            ip: ip.to_owned(),
            name: host.host.clone(),
        })
    };
    meta.extra_hosts.iter().map(line).collect()
}

/// Returns whom a process runs as: its group is among the supplementary ones, as in BuildKit.
pub(crate) fn process_user(user: users::ResolvedUser) -> larder_exec::User {
    let mut groups = user.groups;
    if !groups.contains(&user.gid) {
        groups.insert(0, user.gid);
    }
    larder_exec::User {
        uid: user.uid,
        gid: user.gid,
        groups,
    }
}

fn lost(input: usize, error: BuildError) -> WorkError {
    match error.class() {
        ErrorClass::NotFound => WorkError::InputLost(input, error),
        _ => WorkError::Failed(error),
    }
}

/// Returns where a mount lies; relative to the working directory if its destination is.
fn target(cwd: &str, dest: &str) -> String {
    if dest.starts_with('/') {
        dest.to_owned()
    } else {
        format!("{}/{dest}", cwd.trim_end_matches('/'))
    }
}

fn has_variable(env: &[String], name: &str) -> bool {
    env.iter().any(|entry| {
        entry
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='))
    })
}

/// Returns the part of a mount that a selector names.
fn select(whole: OwnedFd, selector: &str, writable: bool) -> Result<OwnedFd> {
    if matches!(selector, "" | "/" | ".") {
        return Ok(whole);
    }
    let access = if writable {
        Access::ReadWrite
    } else {
        Access::ReadOnly
    };
    mount::bind_beneath(whole.as_fd(), selector, access).map_err(|error| match error.kind() {
        larder_exec::ErrorKind::Input => BuildError::new(
            ErrorClass::NotFound,
            format!("failed to mount {selector}: no such file or directory"),
        ),
        _ => error.into(),
    })
}
