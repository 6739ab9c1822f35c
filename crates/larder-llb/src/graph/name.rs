//! What ops are called where nobody gave them a name.

use crate::pb;
use pb::file_action::Action;
use pb::op::Op;

/// How long a name gets: that of a merge has those of its inputs in it, and so on.
const MAX_BYTES: usize = 1024;

/// Returns the name of an op whose inputs have the names `inputs`, in the op's order.
pub(crate) fn of(op: &pb::Op, inputs: &[String]) -> String {
    let name = match &op.op {
        Some(Op::Source(source)) => source.identifier.clone(),
        Some(Op::Exec(exec)) => {
            let meta = exec.meta.as_ref();
            meta.map(|meta| meta.args.join(" ")).unwrap_or_default()
        }
        Some(Op::File(file)) => {
            let names: Vec<_> = file.actions.iter().map(action_name).collect();
            names.join(", ")
        }
        Some(Op::Build(_)) => "build".to_owned(),
        Some(Op::Merge(_)) => format!("merge ({})", inputs.join(", ")),
        Some(Op::Diff(diff)) => {
            let input = |index: i64| usize::try_from(index).ok().and_then(|i| inputs.get(i));
            let shown = |index: Option<i64>| match index.and_then(input) {
                Some(name) => format!("({name})"),
                None => "scratch".to_owned(),
            };
            format!(
                "diff {} -> {}",
                shown(diff.lower.map(|lower| lower.input)),
                shown(diff.upper.map(|upper| upper.input))
            )
        }
        Some(Op::Passthrough(passthrough)) => format!("passthrough {}", passthrough.id),
        None => "unknown".to_owned(),
    };
    bounded(name)
}

fn bounded(mut name: String) -> String {
    if name.len() > MAX_BYTES {
        let end = (0..=MAX_BYTES)
            .rev()
            .find(|&end| name.is_char_boundary(end));
        name.truncate(end.unwrap_or(0));
        name.push('…');
    }
    name
}

fn action_name(action: &pb::FileAction) -> String {
    match &action.action {
        Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Action::Mkfile(mkfile)) => format!("mkfile {}", mkfile.path),
        Some(Action::Mkdir(mkdir)) => format!("mkdir {}", mkdir.path),
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(symlink)) => {
            format!("symlink {} -> {}", symlink.newpath, symlink.oldpath)
        }
        None => "unknown".to_owned(),
    }
}
