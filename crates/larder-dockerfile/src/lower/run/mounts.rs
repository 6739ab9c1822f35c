//! `RUN --mount`.

use larder_llb::pb;

use super::super::Lowering;
use super::super::asked::secret_id;
use super::super::config::file_node;
use super::super::dag::NodeRef;
use super::super::stages::Command;
use crate::error::Error;
use crate::expand::Expander;
use crate::golang;
use crate::parse::{self, Mount, MountType, Sharing};
use crate::path;

const SECRET_MODE: u32 = 0o400;
const CACHE_MODE: u32 = 0o755;
const AGENT_MODE: u32 = 0o600;
/// Where the seed of a cache mount with an owner of its own lies.
const CACHE_SEED: &str = "/cache";

/// A mount whose input is not an index yet.
pub(super) struct Attached {
    pub(super) mount: pb::Mount,
    pub(super) source: Option<NodeRef>,
}

/// What the mounts of a RUN come to.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) attached: Vec<Attached>,
    /// They follow the others, and are not sorted among them.
    pub(super) secrets: Vec<pb::Mount>,
    /// They follow the secrets.
    pub(super) agents: Vec<pb::Mount>,
    pub(super) secret_env: Vec<pb::SecretEnv>,
    pub(super) has_secrets: bool,
    /// Variables whose values names must not show.
    pub(super) masked: Vec<String>,
}

impl Lowering<'_> {
    pub(super) fn parse_mount(&self, id: usize, text: &str) -> Result<Mount, Error> {
        let expander = Expander::new(self.dockerfile.escape);
        let env = &self.stages.states[id].env;
        let mut bytes = 0;
        let mount = parse::parse_mount(text, |value| {
            let expansion = expander.expand(value, env)?;
            self.check_variables(id, &expansion);
            bytes += expansion.text.len();
            Ok(expansion.text)
        });
        self.count_text(bytes)?;
        mount.map_err(Error::dockerfile)
    }

    pub(super) fn mount(
        &mut self,
        id: usize,
        command: &Command,
        index: usize,
        mount: &Mount,
        mounts: &mut Mounts,
    ) -> Result<(), Error> {
        let lines = command.instruction.lines;
        self.stages.states[id].asked.mounts(mount, lines);
        match mount.kind {
            MountType::Secret => {
                secret(mount, mounts);
                return Ok(());
            }
            MountType::Ssh => return agent(mount, mounts),
            _ => {}
        }
        let dest = absolute_target(&self.stages.states[id].dir, &mount.target);
        if dest == "/" {
            let target = golang::quote(&dest);
            let message = format!("invalid mount target {target}");
            return Err(Error::dockerfile(message));
        }
        if mount.kind == MountType::Tmpfs {
            let mut attached = tmpfs(dest, mount.size_bytes);
            attached.mount.readonly = mount.readonly;
            mounts.attached.push(attached);
            return Ok(());
        }
        let source = command.source(index);
        let mut root = self.mount_root(source, mount)?;
        let selected = path::absolute("/", &mount.source);
        let mut selector = String::new();
        if selected != "/" {
            selector.clone_from(&selected);
        } else if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
            root = Some(self.cache_seed(mount, root));
            CACHE_SEED.clone_into(&mut selector);
        }
        match source {
            Some(source) => {
                let paths = self.stages.states[source].paths;
                self.locals.use_path(paths, &selected);
            }
            None if mount.kind == MountType::Bind => self.locals.use_context_path(&selected),
            None => {}
        }
        let mut attached = pb::Mount {
            selector,
            dest,
            output: -1,
            readonly: mount.readonly,
            ..pb::Mount::default()
        };
        if mount.kind == MountType::Cache {
            attached.set_mount_type(pb::MountType::Cache);
            attached.cache_opt = Some(self.cache_options(mount));
        }
        mounts.attached.push(Attached {
            mount: attached,
            source: root,
        });
        Ok(())
    }

    /// Returns the tree that a mount shows: a stage's, an image's, the context's, or for a cache
    /// none.
    fn mount_root(
        &mut self,
        source: Option<usize>,
        mount: &Mount,
    ) -> Result<Option<NodeRef>, Error> {
        let Some(source) = source else {
            let is_bind = mount.kind == MountType::Bind;
            return Ok(is_bind.then(|| self.locals.context(&mut self.dag)));
        };
        let state = &self.stages.states[source];
        if !state.dispatched {
            return Err(Error::dockerfile(format!(
                "cannot mount from stage {} to {}, stage needs to be defined before current command",
                golang::quote(mount.from.as_deref().unwrap_or_default()),
                golang::quote(&mount.target)
            )));
        }
        Ok(state.output)
    }

    fn cache_options(&self, mount: &Mount) -> pb::CacheOpt {
        let namespace = self.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
        let namespace = namespace.map_or("", String::as_str);
        let sharing = match mount.sharing.unwrap_or(Sharing::Shared) {
            Sharing::Shared => pb::CacheSharingOpt::Shared,
            Sharing::Private => pb::CacheSharingOpt::Private,
            Sharing::Locked => pb::CacheSharingOpt::Locked,
        };
        pb::CacheOpt {
            id: format!("{namespace}/{}", mount.id),
            sharing: sharing.into(),
        }
    }

    /// A cache with an owner or a mode begins with a directory that has them.
    fn cache_seed(&mut self, mount: &Mount, root: Option<NodeRef>) -> NodeRef {
        let user = |id: Option<u32>| {
            let user = pb::user_opt::User::ById(id.unwrap_or_default());
            Some(pb::UserOpt { user: Some(user) })
        };
        let mkdir = pb::FileActionMkDir {
            path: CACHE_SEED.to_owned(),
            mode: (mount.mode.unwrap_or(CACHE_MODE) & 0o777) as i32,
            make_parents: false,
            owner: Some(pb::ChownOpt {
                user: user(mount.uid),
                group: user(mount.gid),
            }),
            timestamp: -1,
        };
        let action = pb::FileAction {
            input: if root.is_some() { 0 } else { -1 },
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkdir(mkdir)),
        };
        let name = "[internal] setting cache mount permissions".to_owned();
        let mut node = file_node(vec![action], name);
        node.inputs.extend(root);
        self.dag.add(node)
    }
}

fn absolute_target(dir: &str, target: &str) -> String {
    if target.starts_with('/') && path::clean(target) != "/" {
        // As written: the destination is part of the key.
        return target.to_owned();
    }
    path::absolute(dir, target)
}

pub(super) fn tmpfs(dest: String, size: i64) -> Attached {
    let mut mount = pb::Mount {
        dest,
        output: -1,
        tmpfs_opt: Some(pb::TmpfsOpt { size }),
        ..pb::Mount::default()
    };
    mount.set_mount_type(pb::MountType::Tmpfs);
    Attached {
        mount,
        source: None,
    }
}

fn secret(mount: &Mount, mounts: &mut Mounts) {
    let id = secret_id(mount);
    let optional = !mount.required;
    mounts.has_secrets = true;
    if let Some(name) = &mount.env {
        mounts.masked.push(name.clone());
        mounts.secret_env.push(pb::SecretEnv {
            id: id.clone(),
            name: name.clone(),
            optional,
        });
        if mount.target.is_empty() {
            return;
        }
    }
    let dest = if mount.target.is_empty() {
        format!("/run/secrets/{}", path::base_name(&id))
    } else {
        mount.target.clone()
    };
    let mut file = pb::Mount {
        input: -1,
        dest,
        secret_opt: Some(pb::SecretOpt {
            id,
            uid: mount.uid.unwrap_or_default(),
            gid: mount.gid.unwrap_or_default(),
            mode: mount.mode.unwrap_or(SECRET_MODE),
            optional,
        }),
        ..pb::Mount::default()
    };
    file.set_mount_type(pb::MountType::Secret);
    mounts.secrets.push(file);
}

fn agent(mount: &Mount, mounts: &mut Mounts) -> Result<(), Error> {
    if !mount.source.is_empty() {
        return Err(Error::dockerfile("ssh does not support source"));
    }
    let dest = match mount.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{}", mounts.agents.len()),
        target => target.to_owned(),
    };
    let mut socket = pb::Mount {
        input: -1,
        dest,
        ssh_opt: Some(pb::SshOpt {
            id: mount.id.clone(),
            uid: mount.uid.unwrap_or_default(),
            gid: mount.gid.unwrap_or_default(),
            mode: mount.mode.unwrap_or(AGENT_MODE),
            optional: !mount.required,
        }),
        ..pb::Mount::default()
    };
    socket.set_mount_type(pb::MountType::Ssh);
    mounts.agents.push(socket);
    Ok(())
}
