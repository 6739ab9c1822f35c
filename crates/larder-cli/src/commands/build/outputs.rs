//! Where a build's result goes.

use std::path::PathBuf;

use anyhow::{Context, bail};
use larder_engine::request::{ArchiveOutput, Destination, LayerCompression, Output};
use larder_oci::ImageRef;

use crate::args::{BuildArgs, OutputArg, OutputKind};
use crate::output;

/// Resolves `--output` and `--load`. Returns the outputs, and the names that they give the image.
pub(crate) fn resolve(args: &BuildArgs) -> anyhow::Result<(Vec<Output>, Vec<ImageRef>)> {
    check(args)?;
    if args.outputs.is_empty() {
        return Ok((vec![Output::Store], Vec::new()));
    }
    let mut outputs = Vec::new();
    let mut names = Vec::new();
    for arg in &args.outputs {
        match (arg.kind, arg.dest.as_deref()) {
            (OutputKind::CacheOnly, _) => {}
            (OutputKind::Image, _) | (OutputKind::Docker, None) => {
                names.extend(image_names(arg)?);
                outputs.push(Output::Store);
            }
            (OutputKind::Docker, Some(dest)) => outputs.push(Output::Docker(archive(arg, dest)?)),
            (OutputKind::Oci, Some(dest)) => outputs.push(Output::Oci(archive(arg, dest)?)),
            (OutputKind::Tar, Some(dest)) => outputs.push(Output::Tar(destination(arg, dest)?)),
            (OutputKind::Local, Some(dest)) => outputs.push(Output::Local(PathBuf::from(dest))),
            (kind, None) => bail!("`--output`: `type={}` needs `dest`", kind.name()),
        }
    }
    if args.load && !outputs.iter().any(|output| matches!(output, Output::Store)) {
        outputs.push(Output::Store);
    }
    Ok((outputs, names))
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
    let attribute = |name: &str| arg.attributes.get(name).map(String::as_str);
    let compression = match attribute("compression") {
        Some("zstd") => LayerCompression::Zstd,
        Some("uncompressed") => LayerCompression::Uncompressed,
        _ => LayerCompression::Gzip,
    };
    Ok(ArchiveOutput {
        destination: destination(arg, dest)?,
        names: image_names(arg)?,
        compression,
        rewrite_timestamp: attribute("rewrite-timestamp") == Some("true"),
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

fn image_names(arg: &OutputArg) -> anyhow::Result<Vec<ImageRef>> {
    let names = arg.attributes.get("name").map_or("", String::as_str);
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.parse().context("`--output`: `name`"))
        .collect()
}
