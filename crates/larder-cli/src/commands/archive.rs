//! `larder save`, `load` and `import`

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use larder_engine::request::{Destination, ImageOutcome};
use larder_oci::ImageRef;

use super::Context;
use crate::args::{ImportArgs, LoadArgs, SaveArgs};
use crate::output;

/// Writes images as one tar.
pub(crate) fn save(args: SaveArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let destination = match args.output {
        Some(path) => Destination::File(path),
        None if output::stdout_is_terminal() => {
            bail!("refusing to write an archive to a terminal; use `--output` or a redirection")
        }
        None => Destination::Stream(Box::new(io::stdout())),
    };
    let platform = args.platform.as_ref();
    let engine = context.engine()?;
    Ok(engine.save_images(&args.images, platform, destination)?)
}

/// Reads images under the names they have.
pub(crate) fn load(args: &LoadArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let images = read(args.input.as_deref(), &[], context)?;
    if !args.quiet {
        output::print(&loaded(&images))?;
    }
    Ok(())
}

/// Reads images under other names.
pub(crate) fn import(args: &ImportArgs, context: &Context<'_>) -> anyhow::Result<()> {
    let file = (args.file != "-").then(|| Path::new(&args.file));
    let images = read(file, &args.names, context)?;
    Ok(output::print(&loaded(&images))?)
}

/// Reads the images of a file, or of standard input.
fn read(
    file: Option<&Path>,
    names: &[ImageRef],
    context: &Context<'_>,
) -> anyhow::Result<Vec<ImageOutcome>> {
    let (mut archive, shown): (Box<dyn Read>, _) = match file {
        Some(path) => (
            Box::new(fs_err::File::open(path)?),
            format!("`{}`", path.display()),
        ),
        None => (stdin()?, "standard input".to_owned()),
    };
    let engine = context.engine()?;
    engine
        .load_images(&mut archive, names)
        .with_context(|| format!("cannot load {shown}"))
}

fn stdin() -> anyhow::Result<Box<dyn Read>> {
    if output::stdin_is_terminal() {
        return Err(anyhow!("refusing to read an archive from a terminal"));
    }
    Ok(Box::new(io::stdin().lock()))
}

/// Names what was loaded, as `docker load` does.
fn loaded(images: &[ImageOutcome]) -> String {
    let lines = |image: &ImageOutcome| match image.names.as_slice() {
        [] => vec![format!("Loaded image ID: {}\n", image.id())],
        names => names
            .iter()
            .map(|name| format!("Loaded image: {}\n", name.familiar()))
            .collect(),
    };
    images.iter().flat_map(lines).collect()
}

#[cfg(test)]
mod tests {
    use larder_oci::{Descriptor, Digest};

    use super::*;

    #[test]
    fn images_are_named_or_else_identified() {
        let image = |names: &[&str]| ImageOutcome {
            descriptor: Descriptor::of("", b"manifest"),
            config_digest: Some(Digest::sha256("config")),
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
        };
        assert_eq!(
            loaded(&[image(&["a", "b:1"]), image(&[])]),
            format!(
                "Loaded image: a:latest\nLoaded image: b:1\nLoaded image ID: {}\n",
                Digest::sha256("config")
            )
        );
    }
}
