use std::collections::BTreeMap;

use larder_llb::{Vertex, pb};
use larder_oci::{Digest, Platform, Sha256};
use serde::{Deserialize, Serialize};

/// What a step's key was made of. Values are digests, so that none is kept in clear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepParts {
    /// The stage's name.
    pub(crate) stage: String,
    /// The step's place among those of its stage.
    pub(crate) ordinal: usize,
    /// As shown.
    pub(crate) name: String,
    /// As written in the Dockerfile.
    pub(crate) instruction: String,
    pub(crate) line: Option<u32>,
    pub(crate) platform: Option<String>,
    /// The op, field by field: what users call it, and a digest of its value.
    pub(crate) fields: Vec<(String, ShortDigest)>,
    pub(crate) env: Vec<EnvPart>,
    pub(crate) bases: Vec<BasePart>,
    /// What was fetched for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<SourcePart>,
    /// What was read of inputs by content: by input, the listing, which names a manifest.
    pub(crate) contents: BTreeMap<usize, Digest>,
    /// The steps and base images that it reads or stands on.
    pub(crate) inputs: Vec<InputPart>,
    /// The number of the record its result is stored under; no part of what it is made of.
    #[serde(default)]
    pub(crate) key: Option<i64>,
}

/// The first 8 bytes of a SHA-256 sum: enough to tell two values apart, too few to guess one from.
pub(crate) type ShortDigest = u64;

/// A variable of a RUN step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnvPart {
    pub(crate) name: String,
    pub(crate) value: ShortDigest,
    pub(crate) is_arg: bool,
    pub(crate) line: Option<u32>,
}

/// A base image that a step stands on directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BasePart {
    pub(crate) image_ref: String,
    /// What the name stands for: of an index, the same on all platforms.
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) platform: Option<String>,
}

/// What was fetched from somewhere: a file of a web server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourcePart {
    /// Where from.
    pub(crate) name: String,
    /// What was said of it: what users call it, and a digest of its value; the content comes last.
    pub(crate) told: Vec<(String, ShortDigest)>,
}

impl SourcePart {
    pub(crate) fn new<'a>(
        name: impl Into<String>,
        told: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let told = told.into_iter();
        Self {
            name: name.into(),
            told: told
                .map(|(what, value)| (what.to_owned(), short(value)))
                .collect(),
        }
    }
}

/// A step or base image that a step reads or stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputPart {
    /// As written in the Dockerfile.
    pub(crate) instruction: String,
    /// Over all that it is made of.
    pub(crate) state: ShortDigest,
}

impl StepParts {
    /// Returns a digest over all that the step is made of, its inputs included; where it stands
    /// does not count.
    pub(crate) fn state(&self) -> ShortDigest {
        let env = self.env.iter().map(|part| (&part.name, part.value));
        let inputs = self.inputs.iter().map(|input| input.state);
        short(format!(
            "{:?}{:?}{:?}{:?}{:?}{:?}",
            self.platform,
            self.fields,
            env.collect::<Vec<_>>(),
            self.bases,
            self.contents,
            inputs.collect::<Vec<_>>()
        ))
    }
}

impl EnvPart {
    /// Returns whether no instruction set it.
    pub(crate) fn is_of_base(&self) -> bool {
        !self.is_arg && self.line.is_none()
    }
}

/// Returns the short digest of `value`.
pub(crate) fn short(value: impl AsRef<[u8]>) -> ShortDigest {
    let mut hasher = Sha256::new();
    hasher.update(value.as_ref());
    let sum = hasher.finish_bytes();
    let mut head = [0; 8];
    head.copy_from_slice(&sum[..8]);
    u64::from_be_bytes(head)
}

/// Returns the op's fields as users know them. Variables are left out: they are parts of their own.
pub(crate) fn fields(vertex: &Vertex) -> Vec<(String, ShortDigest)> {
    let mut fields = Vec::new();
    let mut add = |what: &str, value: String| fields.push((what.to_owned(), short(value)));
    match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => exec_fields(exec, &mut add),
        Some(pb::op::Op::File(file)) => {
            for action in &file.actions {
                action_fields(action, &mut add);
            }
        }
        _ => {}
    }
    fields
}

fn exec_fields(exec: &pb::ExecOp, add: &mut impl FnMut(&str, String)) {
    let meta = exec.meta.clone().unwrap_or_default();
    add("the command", meta.args.join("\0"));
    add("the working directory", meta.cwd);
    add("the user", meta.user);
    add("the host name", meta.hostname);
    add("`--ulimit`", format!("{:?}", meta.ulimit));
    let hosts: Vec<_> = meta.extra_hosts.iter().map(|host| &host.host).collect();
    add("`--add-host`", format!("{hosts:?}"));
    add("the network mode", exec.network.to_string());
    add("the security mode", exec.security.to_string());
    add("the secrets", format!("{:?}", exec.secretenv));
    for mount in exec.mounts.iter().filter(|mount| mount.dest != "/") {
        let mut mount = mount.clone();
        if let Some(cache) = &mut mount.cache_opt {
            cache.sharing = 0;
        }
        let what = if mount.dest == "/dev/shm" {
            "`--shm-size`".to_owned()
        } else {
            format!("the mount `{}`", mount.dest)
        };
        add(&what, format!("{mount:?}"));
    }
}

fn action_fields(action: &pb::FileAction, add: &mut impl FnMut(&str, String)) {
    use pb::file_action::Action;
    match &action.action {
        Some(Action::Copy(copy)) => {
            add("the source", copy.src.clone());
            add("the destination", copy.dest.clone());
            add("`--chown`", format!("{:?}", copy.owner));
            add("`--chmod`", format!("{} {}", copy.mode, copy.mode_str));
            add("`--exclude`", format!("{:?}", copy.exclude_patterns));
            add(
                "`--parents`",
                format!("{:?} {:?}", copy.include_patterns, copy.required_paths),
            );
            add(
                "`--unpack`",
                copy.attempt_unpack_docker_compatibility.to_string(),
            );
        }
        Some(Action::Mkdir(mkdir)) => {
            add("the directory", format!("{} {:o}", mkdir.path, mkdir.mode));
            add("the owner", format!("{:?}", mkdir.owner));
        }
        Some(Action::Mkfile(mkfile)) => {
            add(
                "the here-document",
                format!("{} {:o} {:?}", mkfile.path, mkfile.mode, mkfile.data),
            );
            add("the owner", format!("{:?}", mkfile.owner));
        }
        other => add("the instruction", format!("{other:?}")),
    }
}

/// Returns the platform in a step's key.
pub(crate) fn platform(vertex: &Vertex) -> Option<String> {
    let platform = vertex.op.platform.as_ref()?;
    Some(Platform::linux(&platform.architecture, &platform.variant)).map(|own| {
        Platform {
            os: platform.os.clone(),
            ..own
        }
        .to_string()
    })
}
