//! Where a build's files and its Dockerfile come from.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use larder_engine::request::{ContextSource, DockerfileSource};

use crate::args::values::is_url;

/// Standard input, or what stands for it.
pub(crate) type Stdin = Box<dyn Read + Send>;

/// A Dockerfile on standard input may not be longer.
const MAX_DOCKERFILE_BYTES: u64 = 16 * 1024 * 1024;

/// Resolves the context argument and `--file`.
pub(crate) fn resolve(
    context: &str,
    file: Option<&str>,
    stdin: Stdin,
) -> anyhow::Result<(ContextSource, DockerfileSource)> {
    match (context, file) {
        ("-", Some("-")) => {
            bail!("invalid argument: standard input cannot be both context and Dockerfile")
        }
        ("-", file) => {
            let dockerfile = file.map_or(DockerfileSource::Default, |path| {
                DockerfileSource::Path(PathBuf::from(path))
            });
            Ok((ContextSource::Stream(stdin), dockerfile))
        }
        (context, file) => {
            let dockerfile = match file {
                None => DockerfileSource::Default,
                Some("-") => DockerfileSource::Text(read_dockerfile(stdin)?),
                Some(path) if is_url(path) => DockerfileSource::Remote(path.to_owned()),
                Some(path) => DockerfileSource::Path(PathBuf::from(path)),
            };
            Ok((files(context)?, dockerfile))
        }
    }
}

fn files(context: &str) -> anyhow::Result<ContextSource> {
    let directory = PathBuf::from(context);
    // What is there is no URL.
    if is_url(context) && !directory.is_dir() {
        return Ok(ContextSource::Remote(context.to_owned()));
    }
    ensure!(
        directory.try_exists().unwrap_or(true),
        "unable to prepare context: path {context:?} not found"
    );
    ensure!(
        !directory.is_file(),
        "unable to prepare context: {context:?} is not a directory"
    );
    Ok(ContextSource::Directory(directory))
}

/// Fails unless `path` is a directory.
pub(crate) fn require_directory(flag: &str, path: &Path) -> anyhow::Result<()> {
    ensure!(
        path.is_dir(),
        "`{flag}`: `{}` is not a directory",
        path.display()
    );
    Ok(())
}

fn read_dockerfile(stdin: Stdin) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    stdin
        .take(MAX_DOCKERFILE_BYTES + 1)
        .read_to_end(&mut text)
        .context("cannot read Dockerfile from standard input")?;
    ensure!(
        text.len() as u64 <= MAX_DOCKERFILE_BYTES,
        "the Dockerfile on standard input is longer than {MAX_DOCKERFILE_BYTES} bytes"
    );
    Ok(text)
}
