//! The JSON that BuildKit hashes: Go's encoding of the op structures, fields in declaration
//! order, zero values left out.

use larder_oci::go_json;
use serde::Serialize;

use crate::pb;

#[derive(Serialize)]
pub(super) struct ImageKey<'a> {
    #[serde(rename = "Digest")]
    pub(super) digest: &'a str,
    #[serde(rename = "OS")]
    pub(super) os: &'a str,
    #[serde(rename = "Arch")]
    pub(super) arch: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "str::is_empty")]
    pub(super) variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "str::is_empty")]
    pub(super) os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "<[_]>::is_empty")]
    pub(super) os_features: &'a [String],
}

#[derive(Serialize)]
pub(super) struct ExecKey<'a> {
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    #[serde(rename = "Exec")]
    pub(super) exec: Exec,
    #[serde(rename = "OS")]
    pub(super) os: &'a str,
    #[serde(rename = "Arch")]
    pub(super) arch: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "str::is_empty")]
    pub(super) variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "str::is_empty")]
    pub(super) os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "<[_]>::is_empty")]
    pub(super) os_features: &'a [String],
}

#[derive(Serialize)]
pub(super) struct FileKey {
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    #[serde(rename = "Actions")]
    pub(super) actions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) indexes: Vec<[i64; 3]>,
}

#[derive(Serialize)]
pub(super) struct MergeKey {
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    #[serde(rename = "Merge")]
    pub(super) merge: Merge,
}

#[derive(Serialize)]
pub(super) struct DiffKey {
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    #[serde(rename = "Diff")]
    pub(super) diff: Diff,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a structure whose zero-valued fields are left out, as Go's `omitempty` does.
macro_rules! go_struct {
    ($name:ident { $($field:ident : $kind:ty => $json:literal),* $(,)? }) => {
        #[derive(Serialize, Default, PartialEq)]
        pub(super) struct $name {
            $(#[serde(rename = $json, skip_serializing_if = "is_default")] $field: $kind,)*
        }
    };
}

go_struct!(Exec {
    meta: Option<Meta> => "meta",
    mounts: Vec<Mount> => "mounts",
    network: i32 => "network",
    security: i32 => "security",
    secret_env: Vec<SecretEnv> => "secretenv",
    cdi_devices: Vec<CdiDevice> => "cdiDevices",
});

go_struct!(Meta {
    args: Vec<String> => "args",
    env: Vec<String> => "env",
    cwd: String => "cwd",
    user: String => "user",
    extra_hosts: Vec<HostIp> => "extraHosts",
    hostname: String => "hostname",
    ulimit: Vec<Ulimit> => "ulimit",
    cgroup_parent: String => "cgroupParent",
    remove_mount_stubs_recursive: bool => "removeMountStubsRecursive",
    valid_exit_codes: Vec<i32> => "validExitCodes",
});

go_struct!(HostIp { host: String => "Host" });
go_struct!(Ulimit { name: String => "Name", soft: i64 => "Soft", hard: i64 => "Hard" });
go_struct!(SecretEnv { id: String => "ID", name: String => "name", optional: bool => "optional" });
go_struct!(CdiDevice { name: String => "name", optional: bool => "optional" });

go_struct!(Mount {
    input: i64 => "input",
    dest: String => "dest",
    output: i64 => "output",
    readonly: bool => "readonly",
    mount_type: i32 => "mountType",
    tmpfs: Option<Tmpfs> => "TmpfsOpt",
    cache: Option<Cache> => "cacheOpt",
    secret: Option<Secret> => "secretOpt",
    ssh: Option<Secret> => "SSHOpt",
    result_id: String => "resultID",
    content_cache: i32 => "contentCache",
});

go_struct!(Tmpfs { size: i64 => "size" });
go_struct!(Cache { id: String => "ID", sharing: i32 => "sharing" });
go_struct!(Secret {
    id: String => "ID",
    uid: u32 => "uid",
    gid: u32 => "gid",
    mode: u32 => "mode",
    optional: bool => "optional",
});

go_struct!(Merge { inputs: Vec<MergeInput> => "inputs" });
go_struct!(MergeInput { input: i64 => "input" });
go_struct!(Diff { lower: Option<MergeInput> => "lower", upper: Option<MergeInput> => "upper" });

go_struct!(Copy {
    src: String => "src",
    dest: String => "dest",
    owner: Option<Owner> => "owner",
    mode: i32 => "mode",
    follow_symlink: bool => "followSymlink",
    dir_copy_contents: bool => "dirCopyContents",
    unpack: bool => "attemptUnpackDockerCompatibility",
    create_dest_path: bool => "createDestPath",
    allow_wildcard: bool => "allowWildcard",
    allow_empty_wildcard: bool => "allowEmptyWildcard",
    timestamp: i64 => "timestamp",
    include_patterns: Vec<String> => "include_patterns",
    exclude_patterns: Vec<String> => "exclude_patterns",
    always_replace: bool => "alwaysReplaceExistingDestPaths",
    mode_str: String => "modeStr",
    required_paths: Vec<String> => "required_paths",
});

go_struct!(MkFile {
    path: String => "path",
    mode: i32 => "mode",
    data: String => "data",
    owner: Option<Owner> => "owner",
    timestamp: i64 => "timestamp",
});

go_struct!(MkDir {
    path: String => "path",
    mode: i32 => "mode",
    make_parents: bool => "makeParents",
    owner: Option<Owner> => "owner",
    timestamp: i64 => "timestamp",
});

go_struct!(Rm {
    path: String => "path",
    allow_not_found: bool => "allowNotFound",
    allow_wildcard: bool => "allowWildcard",
});

go_struct!(Symlink {
    old_path: String => "oldpath",
    new_path: String => "newpath",
    owner: Option<Owner> => "owner",
    timestamp: i64 => "timestamp",
});

go_struct!(Owner { user: Option<UserOpt> => "user", group: Option<UserOpt> => "group" });

/// BuildKit writes this one-of by hand: under `User`, the id left out where it is zero.
#[derive(Serialize, PartialEq)]
pub(super) struct UserOpt {
    #[serde(rename = "User")]
    user: User,
}

go_struct!(User {
    by_name: Option<Named> => "byName",
    by_id: u32 => "byId",
});

go_struct!(Named { name: String => "name", input: i64 => "input" });

impl Exec {
    /// Returns the op without what must not enter the key.
    pub(super) fn normalized(exec: &pb::ExecOp) -> Self {
        let mut mounts: Vec<Mount> = exec.mounts.iter().map(Mount::normalized).collect();
        // A lone writable root was not part of the key in BuildKit's first versions.
        if let [only] = &mounts[..]
            && only.is_plain_root()
        {
            mounts.clear();
        }
        Self {
            meta: exec.meta.as_ref().map(Meta::normalized),
            mounts,
            network: exec.network,
            security: exec.security,
            secret_env: exec.secretenv.iter().map(SecretEnv::from).collect(),
            cdi_devices: exec
                .cdi_devices
                .iter()
                .map(|device| CdiDevice {
                    name: device.name.clone(),
                    optional: device.optional,
                })
                .collect(),
        }
    }
}

impl Meta {
    fn normalized(meta: &pb::Meta) -> Self {
        Self {
            args: meta.args.clone(),
            env: meta.env.clone(),
            cwd: meta.cwd.clone(),
            user: meta.user.clone(),
            extra_hosts: meta
                .extra_hosts
                .iter()
                .map(|host| HostIp {
                    host: host.host.clone(),
                })
                .collect(),
            hostname: meta.hostname.clone(),
            ulimit: meta
                .ulimit
                .iter()
                .map(|limit| Ulimit {
                    name: limit.name.clone(),
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            cgroup_parent: meta.cgroup_parent.clone(),
            remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
            valid_exit_codes: meta.valid_exit_codes.clone(),
        }
    }
}

impl Mount {
    fn is_plain_root(&self) -> bool {
        self.dest == "/"
            && !self.readonly
            && self.mount_type == 0
            && self.cache.is_none()
            && self.secret.is_none()
            && self.ssh.is_none()
            && self.result_id.is_empty()
    }

    fn normalized(mount: &pb::Mount) -> Self {
        Self {
            input: mount.input,
            dest: mount.dest.clone(),
            output: mount.output,
            readonly: mount.readonly,
            mount_type: mount.mount_type,
            tmpfs: mount
                .tmpfs_opt
                .as_ref()
                .map(|tmpfs| Tmpfs { size: tmpfs.size }),
            cache: mount
                .cache_opt
                .as_ref()
                .map(|cache| Cache::normalized(cache, &mount.dest)),
            secret: mount.secret_opt.as_ref().map(|secret| Secret {
                id: secret.id.clone(),
                uid: secret.uid,
                gid: secret.gid,
                mode: secret.mode,
                optional: secret.optional,
            }),
            ssh: mount.ssh_opt.as_ref().map(|ssh| Secret {
                id: ssh.id.clone(),
                uid: ssh.uid,
                gid: ssh.gid,
                mode: ssh.mode,
                optional: ssh.optional,
            }),
            result_id: mount.result_id.clone(),
            content_cache: mount.content_cache,
        }
    }
}

impl Cache {
    /// Keeps the id only where it is the default one: the target, below some namespace, shared.
    fn normalized(cache: &pb::CacheOpt, dest: &str) -> Self {
        let default_id = cache.id == dest
            || cache
                .id
                .split_once('/')
                .is_some_and(|(namespace, rest)| !namespace.contains('/') && rest == dest);
        if default_id && cache.sharing == 0 {
            return Self {
                id: cache.id.clone(),
                sharing: 0,
            };
        }
        Self::default()
    }
}

impl From<&pb::SecretEnv> for SecretEnv {
    fn from(secret: &pb::SecretEnv) -> Self {
        Self {
            id: secret.id.clone(),
            name: secret.name.clone(),
            optional: secret.optional,
        }
    }
}

impl From<&pb::MergeOp> for Merge {
    fn from(merge: &pb::MergeOp) -> Self {
        Self {
            inputs: merge
                .inputs
                .iter()
                .map(|input| MergeInput { input: input.input })
                .collect(),
        }
    }
}

impl From<&pb::DiffOp> for Diff {
    fn from(diff: &pb::DiffOp) -> Self {
        Self {
            lower: diff
                .lower
                .as_ref()
                .map(|lower| MergeInput { input: lower.input }),
            upper: diff
                .upper
                .as_ref()
                .map(|upper| MergeInput { input: upper.input }),
        }
    }
}

fn owner(owner: Option<&pb::ChownOpt>) -> Option<Owner> {
    let user = |user: &pb::UserOpt| UserOpt {
        user: match &user.user {
            Some(pb::user_opt::User::ByName(named)) => User {
                by_name: Some(Named {
                    name: named.name.clone(),
                    input: named.input,
                }),
                by_id: 0,
            },
            Some(pb::user_opt::User::ById(id)) => User {
                by_name: None,
                by_id: *id,
            },
            None => User::default(),
        },
    };
    let owner = owner?;
    Some(Owner {
        user: owner.user.as_ref().map(user),
        group: owner.group.as_ref().map(user),
    })
}

/// Returns the JSON of the action itself, without its indexes.
pub(super) fn action_json(action: &pb::FileAction) -> Vec<u8> {
    use base64::Engine as _;
    use pb::file_action::Action;

    match &action.action {
        Some(Action::Copy(copy)) => go_json(&Copy {
            src: copy.src.clone(),
            dest: copy.dest.clone(),
            owner: owner(copy.owner.as_ref()),
            mode: copy.mode,
            follow_symlink: copy.follow_symlink,
            dir_copy_contents: copy.dir_copy_contents,
            unpack: copy.attempt_unpack_docker_compatibility,
            create_dest_path: copy.create_dest_path,
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            timestamp: copy.timestamp,
            include_patterns: copy.include_patterns.clone(),
            exclude_patterns: copy.exclude_patterns.clone(),
            always_replace: copy.always_replace_existing_dest_paths,
            mode_str: copy.mode_str.clone(),
            required_paths: copy.required_paths.clone(),
        }),
        Some(Action::Mkfile(mkfile)) => go_json(&MkFile {
            path: mkfile.path.clone(),
            mode: mkfile.mode,
            data: base64::engine::general_purpose::STANDARD.encode(&mkfile.data),
            owner: owner(mkfile.owner.as_ref()),
            timestamp: mkfile.timestamp,
        }),
        Some(Action::Mkdir(mkdir)) => go_json(&MkDir {
            path: mkdir.path.clone(),
            mode: mkdir.mode,
            make_parents: mkdir.make_parents,
            owner: owner(mkdir.owner.as_ref()),
            timestamp: mkdir.timestamp,
        }),
        Some(Action::Rm(rm)) => go_json(&Rm {
            path: rm.path.clone(),
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        Some(Action::Symlink(symlink)) => go_json(&Symlink {
            old_path: symlink.oldpath.clone(),
            new_path: symlink.newpath.clone(),
            owner: owner(symlink.owner.as_ref()),
            timestamp: symlink.timestamp,
        }),
        None => b"null".to_vec(),
    }
}
