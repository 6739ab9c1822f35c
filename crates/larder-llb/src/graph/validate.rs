//! What an op must be, so that nothing below has to check it again.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::Vertex;
use crate::cache_map::content_suffices;
use crate::pb;
use pb::file_action::Action;
use pb::op::Op;

/// Where the root filesystem of an exec op is mounted.
const ROOT: &str = "/";
/// The index that stands for an empty tree, and for an output that is thrown away.
const NONE: i64 = -1;

/// What is wrong with an op.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(Cow<'static, str>);

impl Problem {
    pub(crate) fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

type Result<T = ()> = std::result::Result<T, Problem>;

fn fail<T>(text: impl Into<Cow<'static, str>>) -> Result<T> {
    Err(Problem::new(text))
}

fn ensure(holds: bool, text: &'static str) -> Result {
    if holds { Ok(()) } else { fail(text) }
}

/// Checks that output `index` of a vertex is there.
pub(super) fn output(vertex: &Vertex, index: i64) -> Result<usize> {
    let count = output_count(&vertex.op);
    match usize::try_from(index) {
        Ok(index) if index < count => Ok(index),
        _ => fail(format!(
            "there is no output {index} of `{}`, which has {count}",
            vertex.digest
        )),
    }
}

/// Returns how many outputs an op has.
fn output_count(op: &pb::Op) -> usize {
    match &op.op {
        Some(Op::Exec(exec)) => output_mounts(exec).count(),
        Some(Op::File(file)) => file.actions.iter().filter(|it| it.output >= 0).count(),
        Some(Op::Passthrough(passthrough)) => passthrough.outputs.len(),
        Some(Op::Source(_) | Op::Build(_) | Op::Merge(_) | Op::Diff(_)) => 1,
        None => 0,
    }
}

/// Returns the mounts of an exec op that make its outputs, in the order of these.
pub fn output_mounts(exec: &pb::ExecOp) -> impl Iterator<Item = usize> {
    let mounts = exec.mounts.iter().enumerate();
    mounts
        .filter(|(_, mount)| makes_output(mount))
        .map(|(position, _)| position)
}

/// Returns whether a mount makes an output. Those of other types have none, whatever they say.
fn makes_output(mount: &pb::Mount) -> bool {
    let has_content = matches!(
        mount.mount_type(),
        pb::MountType::Bind | pb::MountType::Cache
    );
    has_content && mount.output != NONE
}

/// Checks all of an op.
pub(super) fn op(op: &pb::Op) -> Result {
    let count = op.inputs.len() as i64;
    match &op.op {
        None => fail("it has no op that larder knows"),
        Some(Op::Source(source)) => {
            ensure(count == 0, "a source has no inputs")?;
            ensure(
                source.identifier.contains("://"),
                "the source's identifier has no scheme",
            )
        }
        Some(Op::Exec(op)) => exec(op, count),
        Some(Op::File(op)) => file(op, count),
        Some(Op::Build(op)) => build(op, count),
        Some(Op::Merge(op)) => {
            let inner = op.inputs.len();
            if inner as i64 != count {
                return fail(format!(
                    "invalid merge op with {inner} inner inputs and {count} outer inputs"
                ));
            }
            let mut inputs = op.inputs.iter();
            inputs.try_for_each(|input| index("merge input", input.input, 0..count))
        }
        Some(Op::Diff(op)) => {
            let (Some(lower), Some(upper)) = (&op.lower, &op.upper) else {
                return fail("invalid diff op with nil lower or upper input");
            };
            index("diff lower", lower.input, NONE..count)?;
            index("diff upper", upper.input, NONE..count)?;
            let used = [lower.input, upper.input];
            let used = used.iter().filter(|index| **index != NONE).count();
            ensure(
                used as i64 == count,
                "a diff op has an input for each of its sides that is not scratch",
            )
        }
        Some(Op::Passthrough(op)) => {
            ensure(!op.id.is_empty(), "invalid passthrough op with no id")?;
            ensure(
                !op.outputs.is_empty(),
                "invalid passthrough op with no outputs",
            )?;
            let mut outputs = op.outputs.iter();
            outputs.try_for_each(|&input| index("passthrough output", input, 0..count))
        }
    }
}

fn exec(op: &pb::ExecOp, count: i64) -> Result {
    let Some(meta) = &op.meta else {
        return fail("invalid exec op with no meta");
    };
    ensure(!meta.args.is_empty(), "invalid exec op with no args")?;
    ensure(!op.mounts.is_empty(), "invalid exec op with no mounts")?;
    let roots = op.mounts.iter().filter(|mount| mount.dest == ROOT).count();
    ensure(roots > 0, "invalid exec op with no rootfs")?;
    ensure(roots == 1, "an exec op has more than one root filesystem")?;
    known::<pb::NetMode>("network mode", op.network)?;
    known::<pb::SecurityMode>("security mode", op.security)?;
    let texts = [&meta.cwd, &meta.user, &meta.hostname, &meta.cgroup_parent];
    for text in texts.into_iter().chain(&meta.args).chain(&meta.env) {
        no_nul(text)?;
    }
    for secret in &op.secretenv {
        ensure(!secret.id.is_empty(), "a secret variable names no secret")?;
        ensure(!secret.name.is_empty(), "a secret variable has no name")?;
        no_nul(&secret.name)?;
    }
    op.mounts.iter().try_for_each(|it| mount(it, count))?;
    // BuildKit numbers them so, whatever they say.
    let outputs = op.mounts.iter().filter(|mount| makes_output(mount));
    let in_order = (0..)
        .zip(outputs)
        .all(|(place, mount)| mount.output == place);
    ensure(
        in_order,
        "the outputs of an exec op are not numbered from 0 in the order of its mounts",
    )
}

fn mount(mount: &pb::Mount, count: i64) -> Result {
    known::<pb::MountType>("mount type", mount.mount_type)?;
    known::<pb::MountContentCache>("content cache", mount.content_cache)?;
    index("mount input", mount.input, NONE..count)?;
    ensure(!mount.dest.is_empty(), "a mount has no destination")?;
    no_nul(&mount.dest)?;
    no_nul(&mount.selector)?;
    if mount.dest == ROOT && mount.mount_type() != pb::MountType::Bind {
        let kind = mount.mount_type().as_str_name();
        return fail(format!("invalid mount type {kind} for /"));
    }
    if makes_output(mount) && mount.input == NONE && mount.mount_type() == pb::MountType::Cache {
        return fail("a cache mount without an input has no output");
    }
    if mount.content_cache() == pb::MountContentCache::On && !content_suffices(mount) {
        return fail(format!(
            "invalid mount cache content: what is written to `{}` comes out with what the step can't see",
            mount.dest
        ));
    }
    if let Some(cache) = &mount.cache_opt {
        known::<pb::CacheSharingOpt>("cache sharing option", cache.sharing)?;
        no_nul(&cache.id)?;
    }
    let size = mount.tmpfs_opt.as_ref().map_or(0, |tmpfs| tmpfs.size);
    ensure(size >= 0, "a tmpfs has a negative size")?;
    match mount.mount_type() {
        pb::MountType::Cache if mount.cache_opt.is_none() => fail("missing cache mount options"),
        pb::MountType::Secret if mount.secret_opt.is_none() => fail("invalid secret mount options"),
        pb::MountType::Ssh if mount.ssh_opt.is_none() => fail("invalid ssh mount options"),
        _ => Ok(()),
    }
}

fn file(op: &pb::FileOp, count: i64) -> Result {
    ensure(!op.actions.is_empty(), "invalid file op with no actions")?;
    let mut outputs = BTreeSet::new();
    for (done, action) in (0i64..).zip(&op.actions) {
        // An action may read what those before it have made.
        index("file action input", action.input, NONE..count + done)?;
        index(
            "file action secondary input",
            action.secondary_input,
            NONE..count + done,
        )?;
        file_action(action, count)?;
        if action.output != NONE && !outputs.insert(action.output) {
            return fail(format!("duplicate output {}", action.output));
        }
    }
    ensure(!outputs.is_empty(), "no outputs specified")?;
    match (0..).zip(&outputs).find(|(place, output)| place != *output) {
        Some((place, _)) => fail(format!("missing output index {place}")),
        None => Ok(()),
    }
}

fn file_action(action: &pb::FileAction, count: i64) -> Result {
    let (paths, owner) = match &action.action {
        None => return fail("a file action is none that larder knows"),
        Some(Action::Copy(copy)) => {
            ensure(action.secondary_input != NONE, "a copy has no source")?;
            (vec![&copy.src, &copy.dest], &copy.owner)
        }
        Some(Action::Mkfile(mkfile)) => (vec![&mkfile.path], &mkfile.owner),
        Some(Action::Mkdir(mkdir)) => (vec![&mkdir.path], &mkdir.owner),
        Some(Action::Rm(rm)) => (vec![&rm.path], &None),
        Some(Action::Symlink(symlink)) => {
            (vec![&symlink.oldpath, &symlink.newpath], &symlink.owner)
        }
    };
    paths.into_iter().try_for_each(|path| no_nul(path))?;
    let users = owner.iter().flat_map(|owner| [&owner.user, &owner.group]);
    for user in users.flatten() {
        if let Some(pb::user_opt::User::ByName(named)) = &user.user {
            index("user index", named.input, NONE..count)?;
        }
    }
    Ok(())
}

fn build(op: &pb::BuildOp, count: i64) -> Result {
    ensure(op.builder == NONE, "only LLB builder is currently allowed")?;
    let mut inputs = op.inputs.values();
    inputs.try_for_each(|input| index("build input", input.input, 0..count))
}

fn index(what: &str, index: i64, bounds: std::ops::Range<i64>) -> Result {
    if bounds.contains(&index) {
        return Ok(());
    }
    fail(format!("{what} {index} is out of bounds"))
}

fn known<T: TryFrom<i32>>(what: &str, value: i32) -> Result {
    match T::try_from(value) {
        Ok(_) => Ok(()),
        Err(_) => fail(format!("{value} is no {what}")),
    }
}

fn no_nul(text: &str) -> Result {
    ensure(!text.contains('\0'), "a text has a byte 0 in it")
}
