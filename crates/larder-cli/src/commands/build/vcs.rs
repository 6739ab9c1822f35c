//! Of which git repository and commit a local context is: what a provenance tells of it, and labels if
//! they are wanted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use larder_engine::request::{
    BuildRequest, ContextSource, DockerfileSource, Output, ProvenanceMode, Vcs,
};

use crate::args::attest::truth;
use crate::environment::Environment;

/// Whether a provenance tells of the repository; it does unless this is false.
const INFO: &str = "BUILDX_GIT_INFO";
/// Whether labels tell of it: true for those of OCI, `full` for the Dockerfile's path, too.
const LABELS: &str = "BUILDX_GIT_LABELS";
/// Whether a commit with local changes is marked.
const CHECK_DIRTY: &str = "BUILDX_GIT_CHECK_DIRTY";

const REVISION_LABEL: &str = "org.opencontainers.image.revision";
const SOURCE_LABEL: &str = "org.opencontainers.image.source";
const DOCKERFILE_LABEL: &str = "com.docker.image.source.entrypoint";

/// Remotes that are asked for their address if the branch follows none.
const REMOTES: [&str; 2] = ["origin", "upstream"];

/// Adds to a request what the environment wants told of the repository that its context is in. Git is
/// asked only if somebody will see what it says.
pub(crate) fn describe(request: &mut BuildRequest, env: &Environment, notes: &mut Vec<String>) {
    let ContextSource::Directory(context) = &request.context else {
        return;
    };
    let is_on = |name: &str| env.get(name).and_then(truth);
    let in_provenance = is_on(INFO).unwrap_or(true) && has_provenance(request);
    let in_labels = is_on(LABELS).unwrap_or(env.get(LABELS) == Some("full"));
    if !in_provenance && !in_labels {
        return;
    }
    let Some(repository) = Repository::of(context) else {
        if context.join(".git").is_dir() {
            notes.push("git does not tell the commit of the context".to_owned());
        }
        return;
    };
    let dockerfile = match &request.dockerfile {
        DockerfileSource::Default => Some(context.join("Dockerfile")),
        DockerfileSource::Path(path) => Some(path.clone()),
        _ => None,
    };
    let dockerfile = dockerfile.as_deref();
    let vcs = Vcs {
        source: repository.source(),
        revision: repository.revision(is_on(CHECK_DIRTY).unwrap_or(false)),
        context: repository.path_of(context),
        dockerfile: dockerfile.and_then(|path| repository.path_of(directory_of(path))),
    };
    if in_labels {
        let path = dockerfile.and_then(|path| repository.path_of(path));
        let found = [
            (REVISION_LABEL, vcs.revision.clone()),
            (SOURCE_LABEL, vcs.source.clone()),
            (DOCKERFILE_LABEL, path),
        ];
        let labels = &mut request.labels;
        for (name, value) in found {
            let is_given = labels.iter().any(|(given, _)| given == name);
            labels.extend(value.filter(|_| !is_given).map(|it| (name.to_owned(), it)));
        }
    }
    if in_provenance {
        request.attestations.vcs = Some(vcs);
    }
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

/// Returns whether any of a request's outputs gets a provenance that tells of repositories.
fn has_provenance(request: &BuildRequest) -> bool {
    let asked = &request.attestations;
    let pushes = |output: &Output| match output {
        Output::Image(image) => image.push.is_some(),
        _ => false,
    };
    let is_seen = |inline_only: bool| !inline_only || request.outputs.iter().any(pushes);
    let provenance = asked.provenance.as_ref();
    asked.told == Some(ProvenanceMode::Max) || provenance.is_some_and(|it| is_seen(it.inline_only))
}

/// A working tree.
struct Repository {
    /// Where git runs.
    directory: PathBuf,
    /// The top, without symbolic links.
    top: PathBuf,
}

impl Repository {
    /// Returns the one that `directory` is in; `None` if there is none, or no git.
    fn of(directory: &Path) -> Option<Self> {
        let top = git(directory, &["rev-parse", "--show-toplevel"])?;
        Some(Self {
            directory: directory.to_owned(),
            top: fs_err::canonicalize(top).ok()?,
        })
    }

    fn ask(&self, args: &[&str]) -> Option<String> {
        git(&self.directory, args)
    }

    /// Returns the commit; `None` before the first one.
    fn revision(&self, check_dirty: bool) -> Option<String> {
        let commit = self.ask(&["rev-parse", "--verify", "--quiet", "HEAD"])?;
        let changes = ["status", "--porcelain", "--ignored"];
        let is_dirty = check_dirty && self.ask(&changes).is_some();
        Some(if is_dirty {
            format!("{commit}-dirty")
        } else {
            commit
        })
    }

    /// Returns the address of the remote that the branch follows, else of a usual one.
    fn source(&self) -> Option<String> {
        let address = |remote: &str| self.ask(&["remote", "get-url", remote]);
        let followed = || {
            let branch = self.ask(&["symbolic-ref", "--quiet", "HEAD"])?;
            let remote = self.ask(&["for-each-ref", "--format=%(upstream:remotename)", &branch])?;
            address(&remote)
        };
        let address = followed().or_else(|| REMOTES.into_iter().find_map(address))?;
        Some(without_credentials(&address))
    }

    /// Returns the path relative to the top, `.` for the top itself; `None` for what lies outside.
    fn path_of(&self, path: &Path) -> Option<String> {
        let path = fs_err::canonicalize(path).ok()?;
        let relative = path.strip_prefix(&self.top).ok()?.to_str()?;
        Some(if relative.is_empty() { "." } else { relative }.to_owned())
    }
}

/// Returns what git says; `None` if it fails or says nothing. Nothing that the repository's own
/// configuration names is run.
fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args([
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
        ])
        .args(args)
        .current_dir(directory)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// Returns a URL without user and password; addresses of other forms as they are.
fn without_credentials(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_credentials() {
        for (address, shown) in [
            ("https://user:secret@host/a@b", "https://host/a@b"),
            ("https://host/a", "https://host/a"),
            ("ssh://git@host:22/a", "ssh://host:22/a"),
            ("git@host:a/b", "git@host:a/b"),
            ("/path/to@it", "/path/to@it"),
        ] {
            assert_eq!(without_credentials(address), shown);
        }
    }
}
