//! How a step's process is started: its user, environment, network and rights.

use std::os::fd::OwnedFd;

use larder_exec::rootless::{self, IdMap};
use larder_exec::{DnsConfig, ExtraHost, MountPoint, Network, ProcessSpec, Security};
use larder_llb::pb;
use larder_tree::beneath::Root;
use larder_tree::users;

use super::{ROOT, Step};
use crate::error::{BuildError, ErrorClass, Result};
use crate::network::{HOST_GATEWAY, LOOPBACK};
use crate::ops::host;
use crate::progress::VertexProgress;

/// BuildKit's `PATH` for steps that have none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Step<'_> {
    /// Returns what to run over `root`.
    pub(super) fn spec(
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

fn has_variable(env: &[String], name: &str) -> bool {
    env.iter().any(|entry| {
        entry
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='))
    })
}
