//! The bare repository that keeps what was fetched from an address.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use larder_llb::blob::BlobLocator;
use larder_llb::git::{Remote, is_commit};
use larder_oci::{Layer, MountKind};
use larder_store::{CacheMountGuard, CacheMountRequest, Lease, Sharing};

use super::Resolved;
use super::command::{Call, Failure, Git};
use crate::error::{BuildError, ErrorClass, Result};
use crate::progress::VertexProgress;

/// What tells these from the cache mounts of steps, whose seeds are snapshots.
const SEED: &str = "git";
/// As [`SEED`], for repositories whose hashes are SHA-256.
const SEED_SHA256: &str = "git-sha256";
/// As [`SEED`], for what bundles have.
const SEED_BUNDLE: &str = "git-bundle";
const SEED_BUNDLE_SHA256: &str = "git-bundle-sha256";
/// Archives hold all that is committed, in the bytes that a checkout has.
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";

/// What a bare repository keeps.
pub(super) struct Kept {
    name: String,
    description: String,
    is_sha256: bool,
    is_bundle: bool,
}

impl Kept {
    /// What a server has; `commit` tells which kind of hashes.
    pub(super) fn of_server(remote: &Remote, commit: &str) -> Self {
        Self {
            name: address(remote),
            description: format!("shared git repo for {}", remote.redacted()),
            is_sha256: commit.len() > 40,
            is_bundle: false,
        }
    }

    /// What a bundle has. It may lack what its commits need, which harms no other repository.
    pub(super) fn of_bundle(bundle: &BlobLocator, is_sha256: bool) -> Self {
        Self {
            name: bundle.digest.to_string(),
            description: format!("git bundle {bundle}"),
            is_sha256,
            is_bundle: true,
        }
    }

    fn seed(&self) -> &'static str {
        match (self.is_bundle, self.is_sha256) {
            (false, false) => SEED,
            (false, true) => SEED_SHA256,
            (true, false) => SEED_BUNDLE,
            (true, true) => SEED_BUNDLE_SHA256,
        }
    }
}

/// A bare repository that no other process uses.
pub(super) struct Repository<'a> {
    pub(super) git: &'a Git<'a>,
    pub(super) remote: &'a Remote,
    guard: CacheMountGuard,
    lease: &'a Lease,
    /// The record's own directory.
    pub(super) directory: PathBuf,
    pub(super) path: PathBuf,
}

/// Whether a server does not give an object by its hash.
fn is_refused(text: &str) -> bool {
    text.contains("not our ref")
        || text.contains("unadvertised object")
        || text.contains("couldn't find remote ref")
}

/// Returns the address that git is given: one with no credentials that others could see.
pub(super) fn address(remote: &Remote) -> String {
    if remote.scheme().is_http() {
        remote.without_user()
    } else {
        remote.without_password()
    }
}

impl<'a> Repository<'a> {
    /// Opens the repository that keeps what `kept` says of `remote`, made where absent; waits for other
    /// processes to be done with it.
    pub(super) fn open(
        git: &'a Git<'a>,
        lease: &'a Lease,
        remote: &'a Remote,
        kept: &Kept,
        progress: &VertexProgress<'_>,
    ) -> Result<Self> {
        let request = CacheMountRequest {
            name: &kept.name,
            seed: kept.seed(),
            sharing: Sharing::Locked,
            description: &kept.description,
            owner: None,
            mode: 0o700,
            fill: None,
        };
        let waiting =
            || progress.warn("waiting for another build that fetches from this repository");
        let cancel = git.access.cancel;
        let guards = lease.acquire_cache_mounts(&[request], &|| cancel.is_set(), &waiting)?;
        let guard = guards.into_iter().next();
        let guard = guard.ok_or_else(|| BuildError::internal("a repository was not made"))?;
        let MountKind::Bind {
            source: Layer::Directory(directory),
        } = guard.mount().kind
        else {
            return Err(BuildError::internal("a repository is no directory"));
        };
        let repository = Self {
            git,
            remote,
            guard,
            lease,
            path: directory.join("repository"),
            directory,
        };
        repository.init(kept.is_sha256)?;
        Ok(repository)
    }

    fn init(&self, is_sha256: bool) -> Result<()> {
        let attributes = self.path.join("info/attributes");
        // Written last.
        if attributes.exists() {
            return Ok(());
        }
        let mut args = vec!["init", "--quiet", "--bare", "--template="];
        args.extend(is_sha256.then_some("--object-format=sha256"));
        let call = Call::on(&self.path, &args).within(&self.directory);
        self.git
            .run(call)
            .map_err(|failure| self.failed(failure, "failed to init repo"))?;
        let written = fs_err::create_dir_all(self.path.join("info"))
            .and_then(|()| fs_err::write(&attributes, ATTRIBUTES));
        written.map_err(|error| {
            let text = "cannot write the attributes of a repository";
            BuildError::new(ErrorClass::Exhausted, text)
                .with_source(std::io::Error::from(error.kind()))
        })
    }

    /// Returns the commit, which is fetched if it is not here.
    pub(super) fn commit(
        &self,
        resolved: &Resolved,
        progress: &VertexProgress<'_>,
    ) -> Result<String> {
        let object = &resolved.object;
        if self.peel(object).is_none() {
            let status = progress.status(format!("fetching {object}"), 0);
            self.fetch(object)?;
            status.done();
        }
        let commit = self.peel(object).ok_or_else(|| {
            let shown = self.remote.redacted();
            let message = format!("{object} is no commit of {shown}");
            BuildError::new(ErrorClass::NotFound, message)
        })?;
        match &resolved.peeled {
            Some(peeled) if *peeled != commit => Err(BuildError::new(
                ErrorClass::Unavailable,
                format!("{object} leads to {commit}, and the server said {peeled}"),
            )),
            _ => Ok(commit),
        }
    }

    /// Returns the commit that an object is or names, if it is here.
    pub(super) fn peel(&self, object: &str) -> Option<String> {
        let name = format!("{object}^{{commit}}");
        let commit = self.run_line(&["rev-parse", "--verify", "--quiet", &name]);
        commit.ok().filter(|commit| is_commit(commit))
    }

    /// Fetches an object: alone if the server can, else with its ancestors, else with all that the
    /// server has.
    fn fetch(&self, object: &str) -> Result<()> {
        // A fetch that was killed may leave it.
        let _ = fs_err::remove_file(self.path.join("shallow.lock"));
        // The reference keeps it, and lets the server know that it is here.
        let reference = format!("+{object}:refs/larder/{object}");
        let alone = self.try_fetch(&["--depth=1"], &[&reference]);
        let alone = match alone {
            Err(Failure::Said(text)) if text.contains("shallow") || text.contains("depth") => {
                self.try_fetch(&[], &[&reference])
            }
            alone => alone,
        };
        let fetched = match alone {
            Err(Failure::Said(text)) if is_refused(&text) => self.fetch_all(),
            alone => alone,
        };
        let text = format!("failed to fetch remote {}", self.remote.redacted());
        fetched.map_err(|failure| self.failed(failure, &text))
    }

    /// Fetches all ancestors of what is here, for a commit to be given to others.
    pub(super) fn complete(&self, object: &str, progress: &VertexProgress<'_>) -> Result<()> {
        if !self.is_shallow() {
            return Ok(());
        }
        let status = progress.status(format!("fetching the ancestors of {object}"), 0);
        let reference = format!("+{object}:refs/larder/{object}");
        let fetched = match self.try_fetch(&["--unshallow"], &[&reference]) {
            Err(Failure::Said(text)) if is_refused(&text) => self.fetch_all(),
            fetched => fetched,
        };
        let text = format!("failed to fetch remote {}", self.remote.redacted());
        fetched.map_err(|failure| self.failed(failure, &text))?;
        status.done();
        Ok(())
    }

    fn is_shallow(&self) -> bool {
        self.path.join("shallow").exists()
    }

    fn fetch_all(&self) -> Result<(), Failure> {
        let whole: &[&str] = if self.is_shallow() {
            &["--unshallow"]
        } else {
            &[]
        };
        let all = [
            "+refs/heads/*:refs/all/heads/*",
            "+refs/tags/*:refs/all/tags/*",
        ];
        self.try_fetch(&[whole, &["--prune"]].concat(), &all)
    }

    /// Takes all that a bundle has, by its own names.
    pub(super) fn import(&self, bundle: File) -> Result<(), Failure> {
        let mut args = vec!["fetch", "--quiet", "--atomic", "--no-tags"];
        args.extend([
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-gc",
        ]);
        args.extend(["--", "/dev/stdin", "+refs/*:refs/*"]);
        let none = std::iter::empty();
        let watch = self.lease.watch(none, [&self.guard]);
        let watch = watch.map_err(BuildError::from)?;
        let call = Call::on(&self.path, &args).within(&self.directory);
        let call = call.locally().reading(bundle).watched(watch);
        self.git.run(call).map(drop)
    }

    /// Returns whether it has any reference.
    pub(super) fn has_references(&self) -> Result<bool, Failure> {
        let args = ["for-each-ref", "--count=1", "--format=%(refname)"];
        Ok(!self.run(&args)?.is_empty())
    }

    /// Lists the references that a name may stand for, as a server would.
    pub(super) fn list(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let peeled = format!("{name}^{{}}");
        let args = ["ls-remote", "--", "./repository", name, &peeled];
        let call = Call::on(&self.path, &args).within(&self.directory);
        self.git.run(call.locally())
    }

    fn try_fetch(&self, options: &[&str], references: &[&str]) -> Result<(), Failure> {
        let url = address(self.remote);
        let mut args = vec!["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"];
        args.extend(["--no-write-fetch-head", "--no-auto-gc"]);
        args.extend(options);
        args.extend(["--", &url]);
        args.extend(references);
        let none = std::iter::empty();
        let watch = self.lease.watch(none, [&self.guard]);
        let watch = watch.map_err(BuildError::from)?;
        let call = Call::on(&self.path, &args).within(&self.directory);
        self.git.run(call.watched(watch)).map(drop)
    }

    /// Runs a command that reads the repository; returns what it tells.
    pub(super) fn run(&self, args: &[&str]) -> Result<Vec<u8>, Failure> {
        self.git
            .run(Call::on(&self.path, args).within(&self.directory))
    }

    /// Returns an object as git hashes it, without its header.
    pub(super) fn object(&self, kind: &str, id: &str) -> Result<Vec<u8>> {
        let told = self.run(&["cat-file", kind, id]);
        told.map_err(|failure| self.failed(failure, &format!("failed to read {kind} {id}")))
    }

    fn run_line(&self, args: &[&str]) -> Result<String, Failure> {
        self.git
            .line(Call::on(&self.path, args).within(&self.directory))
    }

    /// Hands the files of a commit, as a tar, to `take`.
    pub(super) fn archive<T>(
        &self,
        tree: &str,
        take: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T> {
        let call = Call::on(&self.path, &["archive", "--format=tar", tree]);
        self.git
            .read(call.within(&self.directory), take)
            .map_err(|failure| self.failed(failure, "failed to checkout"))
    }

    /// Returns when a commit was made, in seconds since 1970.
    pub(super) fn commit_time(&self, commit: &str) -> Result<i64> {
        let told = self.run_line(&["show", "--no-patch", "--format=%ct", commit]);
        let told = told.map_err(|failure| self.failed(failure, "failed to read a commit"))?;
        told.trim().parse().map_err(|_| {
            BuildError::new(ErrorClass::Invalid, format!("commit {commit} has no time"))
        })
    }

    /// Returns the error of `what`, without the paths of the store.
    pub(super) fn failed(&self, failure: Failure, what: &str) -> BuildError {
        let failure = match failure {
            Failure::Said(text) => {
                let directory = self.directory.to_string_lossy();
                Failure::Said(text.replace(&*directory, "<store>"))
            }
            other @ Failure::Other(_) => other,
        };
        failure.of(what)
    }
}
