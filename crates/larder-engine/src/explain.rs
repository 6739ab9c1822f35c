//! Why a step was not cached: what its key was made of now, against what it was made of when the
//! same step last ran.

use std::collections::BTreeMap;

use larder_llb::{Vertex, pb};
use larder_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::event::MissCause;

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
    /// What was read of inputs by content: by input, the digest, which names a manifest.
    pub(crate) contents: BTreeMap<usize, Digest>,
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
    pub(crate) digest: Digest,
}

/// Returns the short digest of `value`.
pub(crate) fn short(value: impl AsRef<[u8]>) -> ShortDigest {
    let sum = Digest::sha256(value).sha256_bytes().unwrap_or_default();
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

/// Returns the earlier parts that are of the same step as `now`: in the same stage, the same
/// instruction (the nearest, if there are several); else what stood in the same place.
pub(crate) fn counterpart<'a>(now: &StepParts, earlier: &'a [StepParts]) -> Option<&'a StepParts> {
    let in_stage = || earlier.iter().filter(|step| step.stage == now.stage);
    in_stage()
        .filter(|step| step.instruction == now.instruction)
        .min_by_key(|step| step.ordinal.abs_diff(now.ordinal))
        .or_else(|| in_stage().find(|step| step.ordinal == now.ordinal && verb(step) == verb(now)))
}

fn verb(step: &StepParts) -> String {
    step.instruction
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase()
}

/// Returns the first difference between two states of a step, apart from the files it reads.
pub(crate) fn difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    if let (Some(from), Some(to)) = (&before.platform, &now.platform)
        && from != to
    {
        return Some(MissCause::Platform {
            from: from.clone(),
            to: to.clone(),
        });
    }
    field_difference(now, before)
        .or_else(|| env_difference(now, before))
        .or_else(|| base_difference(now, before))
}

fn field_difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    let changed = |what: &String| MissCause::Instruction {
        line: now.line,
        what: what.clone(),
    };
    for (position, (what, value)) in now.fields.iter().enumerate() {
        match before.fields.get(position) {
            Some((old_what, old_value)) if old_what == what && old_value == value => {}
            _ => return Some(changed(what)),
        }
    }
    before
        .fields
        .get(now.fields.len())
        .map(|(what, _)| changed(what))
}

fn env_difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    let cause = |part: &EnvPart| {
        let (name, line) = (part.name.clone(), part.line);
        if part.is_arg {
            MissCause::Arg { name, line }
        } else {
            MissCause::Env { name, line }
        }
    };
    let same_name = |parts: &[EnvPart], name: &str| parts.iter().position(|part| part.name == name);
    for part in &now.env {
        match same_name(&before.env, &part.name) {
            Some(old) if before.env[old].value == part.value => {}
            _ => return Some(cause(part)),
        }
    }
    before
        .env
        .iter()
        .find(|part| same_name(&now.env, &part.name).is_none())
        .map(|part| {
            cause(&EnvPart {
                line: None,
                ..part.clone()
            })
        })
}

fn base_difference(now: &StepParts, before: &StepParts) -> Option<MissCause> {
    now.bases.iter().find_map(|base| {
        let old = before
            .bases
            .iter()
            .find(|old| old.image_ref == base.image_ref)
            .or(before.bases.first());
        (old.map(|old| &old.digest) != Some(&base.digest)).then(|| MissCause::BaseImage {
            image_ref: base.image_ref.clone(),
            from: old.map(|old| old.digest.clone()),
            to: base.digest.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> StepParts {
        StepParts {
            stage: "stage-0".into(),
            ordinal: 2,
            name: "[2/3] RUN make".into(),
            instruction: "RUN make".into(),
            line: Some(4),
            platform: Some("linux/amd64".into()),
            fields: vec![("the command".into(), 1), ("the user".into(), 2)],
            env: vec![EnvPart {
                name: "A".into(),
                value: 1,
                is_arg: true,
                line: Some(2),
            }],
            bases: vec![BasePart {
                image_ref: "python:3".into(),
                digest: Digest::sha256("a"),
            }],
            contents: BTreeMap::new(),
        }
    }

    #[test]
    fn each_single_cause_is_named() {
        let check = |change: &dyn Fn(&mut StepParts), expected: &str| {
            let (before, mut now) = (step(), step());
            change(&mut now);
            assert_eq!(
                difference(&now, &before).map(|cause| cause.to_string()),
                Some(expected.to_owned())
            );
        };
        assert_eq!(difference(&step(), &step()), None);
        check(&|now| now.fields[0].1 = 9, "the command changed, line 4");
        check(
            &|now| now.fields.push(("the mount `/x`".into(), 1)),
            "the mount `/x` changed, line 4",
        );
        check(&|now| now.env[0].value = 9, "`ARG A` changed, line 2");
        check(&|now| now.env.clear(), "`ARG A` changed");
        check(
            &|now| now.platform = Some("linux/arm64".into()),
            "the platform changed from linux/amd64 to linux/arm64",
        );
        check(
            &|now| now.bases[0].digest = Digest::sha256("b"),
            "base image `python:3` changed from ca978112ca1b to 3e23e8160039",
        );
    }

    #[test]
    fn a_moved_instruction_is_the_same_step() {
        let moved = StepParts {
            ordinal: 5,
            ..step()
        };
        assert_eq!(
            counterpart(&step(), std::slice::from_ref(&moved)),
            Some(&moved)
        );
        let edited = StepParts {
            instruction: "RUN make -j2".into(),
            ..step()
        };
        assert_eq!(
            counterpart(&step(), std::slice::from_ref(&edited)),
            Some(&edited)
        );
        let other_stage = StepParts {
            stage: "x".into(),
            ..step()
        };
        assert_eq!(counterpart(&step(), &[other_stage]), None);
    }
}
