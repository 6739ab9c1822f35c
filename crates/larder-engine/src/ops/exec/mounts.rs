//! What a step's process finds mounted.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use larder_exec::mount::{self, Access};
use larder_exec::{MountPoint, MountSource};
use larder_llb::pb;
use larder_store::{CacheMountRequest, NewSnapshot, RecordType, Sharing, SnapshotId};
use larder_tree::beneath::Root;
use larder_tree::quota::Quota;

use super::{Held, ROOT, Step};
use crate::cancel::CancelFlag;
use crate::error::{BuildError, ErrorClass, Result};
use crate::ops::host;
use crate::ops::ssh::{self, AgentSocket};
use crate::progress::VertexProgress;
use crate::solve::WorkError;

/// BuildKit's bound on the size of a secret.
const MAX_SECRET_BYTES: usize = 500 << 10;

impl Step<'_> {
    /// Returns the root, and the other mounts in the op's order.
    pub(super) fn mounts(
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

    /// Returns a secret; `None` for one that is optional and not there.
    pub(super) fn secret_bytes(&self, id: &str, optional: bool) -> Result<Option<Vec<u8>>> {
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
