//! Where a build's result goes.

use std::path::PathBuf;

use anyhow::bail;
use larder_engine::request::{ArchiveOutput, Destination, ImageOutput, Output, PushOptions};

use crate::args::{BuildArgs, OutputArg, OutputKind};
use crate::output;

/// Resolves `--output`, `--push`, `--load` and `--annotation`.
pub(crate) fn resolve(args: &BuildArgs) -> anyhow::Result<Vec<Output>> {
    check(args)?;
    let mut outputs = of(&args.outputs)?;
    if args.push {
        push(&mut outputs);
    }
    let is_stored = |output: &Output| matches!(output, Output::Image(image) if image.store);
    if (args.load && !outputs.iter().any(is_stored)) || (outputs.is_empty() && !keeps_nothing(args))
    {
        outputs.push(Output::Image(ImageOutput::default()));
    }
    for output in &mut outputs {
        if let Output::Image(ImageOutput { options, .. })
        | Output::Oci(ArchiveOutput { options, .. })
        | Output::Docker(ArchiveOutput { options, .. }) = output
        {
            let further = args.annotations.iter().flat_map(|arg| &arg.0);
            options.annotations.extend(further.cloned());
        }
    }
    Ok(outputs)
}

/// Returns the outputs that `args` ask for.
pub(crate) fn of(args: &[OutputArg]) -> anyhow::Result<Vec<Output>> {
    let outputs = args.iter().map(output_of);
    let outputs = outputs.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(outputs.into_iter().flatten().collect())
}

/// Returns the output that `arg` asks for, if any.
fn output_of(arg: &OutputArg) -> anyhow::Result<Option<Output>> {
    Ok(Some(match (arg.kind, arg.dest.as_deref()) {
        (OutputKind::CacheOnly, _) => return Ok(None),
        (OutputKind::Image, _) | (OutputKind::Docker, None) => Output::Image(arg.image.clone()),
        (OutputKind::Docker, Some(dest)) => Output::Docker(archive(arg, dest)?),
        (OutputKind::Oci, Some(dest)) => Output::Oci(archive(arg, dest)?),
        (OutputKind::Tar, Some(dest)) => Output::Tar(arg.tree.clone().to(destination(arg, dest)?)),
        (OutputKind::Local, Some(dest)) => Output::Local(arg.tree.clone().to(PathBuf::from(dest))),
        (kind, None) => bail!("`--output`: `type={}` needs `dest`", kind.name()),
    }))
}

/// Pushes the images that an output makes anyway, else one more.
fn push(outputs: &mut Vec<Output>) {
    let mut pushed = false;
    for output in &mut *outputs {
        if let Output::Image(image) = output {
            image.push.get_or_insert_default();
            pushed = true;
        }
    }
    if !pushed {
        outputs.push(Output::Image(ImageOutput {
            push: Some(PushOptions::default()),
            ..ImageOutput::default()
        }));
    }
}

/// Returns whether outputs were given, and none makes anything.
fn keeps_nothing(args: &BuildArgs) -> bool {
    let is_nothing = |arg: &OutputArg| arg.kind == OutputKind::CacheOnly;
    !args.outputs.is_empty() && args.outputs.iter().all(is_nothing)
}

fn check(args: &BuildArgs) -> anyhow::Result<()> {
    let is_tree = |arg: &&OutputArg| matches!(arg.kind, OutputKind::Local | OutputKind::Tar);
    if let Some(tree) = args.outputs.iter().find(is_tree)
        && args.iidfile.is_some()
    {
        bail!(
            "`--iidfile` has nothing to name: `type={}` makes no image",
            tree.kind.name()
        );
    }
    let to_stdout = |arg: &&OutputArg| arg.dest.as_deref() == Some("-");
    match args.outputs.iter().filter(to_stdout).count() {
        1 if args.quiet => {
            bail!("`--quiet` and an output to standard output cannot be used together")
        }
        0 | 1 => Ok(()),
        _ => bail!("only one output can go to standard output"),
    }
}

fn archive(arg: &OutputArg, dest: &str) -> anyhow::Result<ArchiveOutput> {
    Ok(ArchiveOutput {
        destination: destination(arg, dest)?,
        names: arg.image.names.clone(),
        options: arg.image.options.clone(),
    })
}

fn destination(arg: &OutputArg, dest: &str) -> anyhow::Result<Destination> {
    if dest != "-" {
        return Ok(Destination::File(PathBuf::from(dest)));
    }
    if output::stdout_is_terminal() {
        bail!(
            "`--output`: refusing to write `type={}` to a terminal; give it a `dest`",
            arg.kind.name()
        );
    }
    Ok(Destination::Stream(Box::new(std::io::stdout())))
}
