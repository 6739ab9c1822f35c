//! Bake files that are fetched from somewhere, with the contexts beside them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use larder_bake::{DEFAULT_FILES, Plan, clean_path, is_remote};
use larder_engine::request::{
    BuildRequest, ContextSource, DockerfileSource, Output, TreeOutput, is_repository,
};
use tempfile::TempDir;

use super::request::LOCAL_PREFIX;
use crate::commands::Context;
use crate::commands::build::ssh::{self, FlagSsh};
use crate::commands::build::{build, plan};
use crate::progress::Mode;

/// What a context that is a single file consists of.
const SINGLE_FILE: &str = "context";
/// Contexts that are neither paths nor remote.
const OTHER_SCHEMES: [&str; 3] = ["target:", "docker-image:", "oci-layout:"];

/// Where bake files are: a git repository, an archive, or a single file of a web server.
pub(super) struct Remote {
    url: String,
    /// What the command line names beside it, for files that ask for that.
    command_context: Option<String>,
}

impl Remote {
    /// Takes the addresses at the beginning of the targets.
    pub(super) fn split(targets: &[String]) -> (Option<Self>, &[String]) {
        let Some((url, rest)) = targets.split_first().filter(|(url, _)| is_remote(url)) else {
            return (None, targets);
        };
        let further = rest.split_first().filter(|(next, _)| is_remote(next));
        let remote = Self {
            url: url.clone(),
            command_context: further.map(|(next, _)| next.clone()),
        };
        (Some(remote), further.map_or(rest, |(_, rest)| rest))
    }

    /// Returns the value of `BAKE_CMD_CONTEXT`.
    pub(super) fn command_context(&self) -> String {
        let given = self.command_context.as_deref();
        given.unwrap_or(LOCAL_PREFIX).to_owned()
    }

    /// Fetches the files `names`, or those with the usual names, by a build of their own. Names of files
    /// that are here become absolute.
    pub(super) fn fetch(
        &self,
        names: &mut [String],
        directory: &Path,
        mode: Mode,
        context: &Context<'_>,
    ) -> anyhow::Result<TempDir> {
        let mut wanted = Vec::new();
        for name in names.iter_mut() {
            match name.strip_prefix(LOCAL_PREFIX) {
                Some(local) => *name = directory.join(local).to_string_lossy().into_owned(),
                None if name == "-" => {}
                None => wanted.push(name.clone()),
            }
        }
        let fetched = tempfile::tempdir().context("cannot keep the bake files")?;
        if !names.is_empty() && wanted.is_empty() {
            return Ok(fetched);
        }
        if names.is_empty() {
            wanted.extend(DEFAULT_FILES.into_iter().chain([SINGLE_FILE]).map(optional));
        }
        wanted.push("/".to_owned());
        let sources = serde_json::to_string(&wanted)?.replace('$', "\\\\$");
        let dockerfile = format!("FROM scratch\nCOPY --parents {sources}\n");
        let mut request = BuildRequest::new(ContextSource::Remote(self.url.clone()));
        request.dockerfile = DockerfileSource::Text(dockerfile.into_bytes());
        let agents = ssh::for_context(&self.url, Vec::new());
        request.ssh = Arc::new(FlagSsh::new(agents, context.env)?);
        request.source_policy = context.source_policy()?;
        request.outputs = vec![Output::Local(TreeOutput::new(fetched.path().to_owned()))];
        let display = plan::display_options(context, &mut Vec::new());
        build(request, mode, display, context)
            .with_context(|| "cannot fetch the bake files".to_owned())?;
        self.rename_single(fetched.path())?;
        Ok(fetched)
    }

    /// Gives a single file one of the usual names.
    fn rename_single(&self, directory: &Path) -> anyhow::Result<()> {
        let file = directory.join(SINGLE_FILE);
        if self.is_repository() || !file.is_file() {
            return Ok(());
        }
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let name = match Path::new(path).extension().and_then(|it| it.to_str()) {
            Some("json") => "docker-bake.json",
            Some("yaml" | "yml") => "compose.yaml",
            _ => "docker-bake.hcl",
        };
        Ok(fs_err::rename(file, directory.join(name))?)
    }

    /// Makes contexts that are paths such of what the files are from.
    ///
    /// # Errors
    /// Names the target whose context can't be had.
    pub(super) fn place(&self, plan: &mut Plan) -> anyhow::Result<()> {
        for (name, target) in &mut plan.targets {
            let context = target.context.iter_mut();
            for context in context.chain(target.contexts.values_mut()) {
                let placed = self.placed(context);
                *context = placed.with_context(|| format!("target.{name}: `{context}`"))?;
            }
        }
        Ok(())
    }

    fn placed(&self, context: &str) -> anyhow::Result<String> {
        if let Some(local) = context.strip_prefix(LOCAL_PREFIX) {
            return Ok(if local.is_empty() { "." } else { local }.to_owned());
        }
        let has_scheme = |scheme: &&str| context.starts_with(scheme);
        if is_remote(context) || OTHER_SCHEMES.iter().any(has_scheme) {
            return Ok(context.to_owned());
        }
        let path = clean_path(context);
        let path = path.trim_start_matches('/');
        ensure!(
            path != ".." && !path.starts_with("../"),
            "it is outside of what the bake files are from"
        );
        match path {
            "" | "." => Ok(self.url.clone()),
            _ if self.is_repository() => self.beneath(path),
            _ => {
                bail!("a directory of an archive can't be a context; `ADD` the archive to a stage")
            }
        }
    }

    /// Returns the address of a directory of the repository.
    fn beneath(&self, path: &str) -> anyhow::Result<String> {
        let (address, fragment) = self.url.split_once('#').unwrap_or((&self.url, ""));
        let (reference, top) = fragment.split_once(':').unwrap_or((fragment, ""));
        ensure!(
            !address.contains("subdir="),
            "name the directory of the bake files as `#REF:DIR`"
        );
        let path = match top.trim_matches('/') {
            "" => path.to_owned(),
            top => format!("{top}/{path}"),
        };
        Ok(format!("{address}#{reference}:{}", escaped(&path)))
    }

    fn is_repository(&self) -> bool {
        is_repository(&self.url)
    }
}

/// Returns the pattern that fits `name` only, and that may fit nothing.
fn optional(name: &str) -> String {
    let (rest, last) = name.split_at(name.len() - 1);
    format!("{rest}[{last}]")
}

/// Returns a path as the fragment of an address has it.
fn escaped(path: &str) -> String {
    path.replace('%', "%25")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Remote {
        let targets = [url.to_owned()];
        Remote::split(&targets).0.expect("it is remote")
    }

    #[test]
    fn contexts_are_those_beside_the_files() {
        let plain = "https://e.test/a.git";
        for (url, context, expected) in [
            (plain, ".", plain),
            (plain, "app", "https://e.test/a.git#:app"),
            (plain, "./app/../lib", "https://e.test/a.git#:lib"),
            (plain, "cwd://", "."),
            (plain, "cwd://dir", "dir"),
            (plain, "target:base", "target:base"),
            (plain, "https://e.test/b.git", "https://e.test/b.git"),
            (
                "git@e.test:a#v1:deploy",
                "app",
                "git@e.test:a#v1:deploy/app",
            ),
            ("https://e.test/a.tar.gz", ".", "https://e.test/a.tar.gz"),
        ] {
            let placed = remote(url).placed(context);
            assert_eq!(placed.unwrap(), expected, "{url} {context}");
        }
        for (url, context) in [
            (plain, "../x"),
            ("https://e.test/a.tar.gz", "app"),
            ("https://e.test/a.git?subdir=x", "app"),
        ] {
            assert!(remote(url).placed(context).is_err(), "{url} {context}");
        }
    }

    #[test]
    fn addresses_come_before_targets() {
        let names = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let targets: Vec<String> = names(&["https://e.test/a.git", "git@e.test:b", "app"]);
        let (remote, rest) = Remote::split(&targets);
        assert_eq!(remote.unwrap().command_context(), "git@e.test:b");
        assert_eq!(rest, ["app"]);
        let targets: Vec<String> = names(&["app", "https://e.test/a.git"]);
        assert!(Remote::split(&targets).0.is_none());
    }
}
