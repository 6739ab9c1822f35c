//! Git repositories: where a reference leads, and what lies there.
//!
//! All is done by the system's `git`, which is given no configuration but ours, no hooks, and no
//! file of a repository to obey. What it fetches stays in a bare repository, one an address, which
//! the store keeps as it keeps cache mounts: locked while it is used, told by `du`, pruned with them.
//! Files come out of it as an archive, unpacked beneath a handle like any other.
//!
//! | asked for | what is asked of the server |
//! | --- | --- |
//! | a whole commit that was fetched before, or its result is in the cache | nothing |
//! | a branch, a tag, the default branch | once in a run, where it leads |
//! | a commit that is not there yet | that commit, without its ancestors if the server can |
//! | a commit for a bundle | that commit and all its ancestors |
//! | a commit in a bundle | nothing: the bundle is a blob, and has a bare repository of its own |
//!
//! Credentials reach `git` in its environment, bound to the repository's address. They are in no
//! argument, file, key or message.

mod auth;
mod bundle;
mod checkout;
mod command;
mod git_dir;
mod made;
mod repository;
mod resolve;
mod signature;
mod submodules;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use larder_llb::git::GitSource;
use larder_llb::{Vertex, pb};
use larder_oci::Digest;

use crate::cancel::CancelFlag;
use crate::error::{BuildError, Result};
use crate::event::LogStream;
use crate::explain::SourcePart;
use crate::fetch::Fetcher;
use crate::ops::host;
use crate::progress::VertexProgress;
use crate::request::{SecretProvider, SshProvider};
use crate::worker::{BuildWorker, ResultRef};

use bundle::Bundles;
pub(crate) use checkout::Checkout;
pub(crate) use resolve::Resolved;

/// What it takes to reach repositories.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) secrets: &'a dyn SecretProvider,
    pub(crate) ssh: &'a dyn SshProvider,
    pub(crate) variables: host::Variables<'a>,
    pub(crate) cancel: &'a CancelFlag,
}

/// Where references lead: asked once in a run, so that all of it sees the same.
#[derive(Default)]
pub(crate) struct Resolutions(Mutex<HashMap<Asked, Resolved>>);

/// Who is asked, and for which reference.
type Asked = (String, String);

impl Resolutions {
    /// Returns where the reference of a source leads.
    pub(crate) fn resolve(&self, source: &GitSource, checkout: &Checkout<'_>) -> Result<Resolved> {
        if let Some(resolved) = resolve::without_asking(source)? {
            return Ok(resolved);
        }
        let key = asked(source);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(&key).cloned();
        let resolved = if let Some(resolved) = found {
            resolved
        } else {
            let resolved = checkout.ask(source)?;
            known().entry(key).or_insert(resolved).clone()
        };
        resolve::check(source, &resolved)?;
        Ok(resolved)
    }
}

impl Resolutions {
    /// Returns the commit that a source is known to stand for in this run.
    pub(crate) fn known_commit(&self, source: &pb::SourceOp) -> Option<String> {
        let source = read(source).ok()?;
        if let Some(resolved) = resolve::without_asking(&source).ok()? {
            return Some(resolved.commit(&source).to_owned());
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(known.get(&asked(&source))?.commit(&source).to_owned())
    }
}

fn asked(source: &GitSource) -> Asked {
    let whom = match &source.bundle {
        Some(bundle) => bundle.to_string(),
        None => source.remote.url().to_owned(),
    };
    (whom, source.reference.clone())
}

/// Returns whether a source is a repository.
pub(crate) fn is_git(source: &pb::SourceOp) -> bool {
    source.identifier.starts_with("git://")
}

/// Finds out where the reference of a source leads, and returns the op's digest.
pub(crate) fn resolve(
    worker: &BuildWorker<'_>,
    vertex: &Vertex,
    source: &pb::SourceOp,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<Digest> {
    let source = read(source)?;
    let checkout = checkout(worker, progress, cancel);
    let resolved = worker.repositories.resolve(&source, &checkout)?;
    if let Some(wanted) = &source.signature {
        checkout.verify(&source, &resolved, wanted, worker.engine.now())?;
    }
    let line = format!("{}\t{}\n", resolved.object, resolved.reference);
    progress.log(LogStream::Stdout, line.as_bytes());
    let part = SourcePart::new(
        source.redacted(),
        [("the commit", resolved.object.as_str())],
    );
    worker.history.add_source(vertex, part);
    Ok(resolved.cache_digest(&source))
}

/// Returns the files that a source asks for.
pub(crate) fn load(
    worker: &BuildWorker<'_>,
    source: &pb::SourceOp,
    progress: &VertexProgress<'_>,
    cancel: &CancelFlag,
) -> Result<ResultRef> {
    let source = read(source)?;
    let checkout = checkout(worker, progress, cancel);
    let resolved = worker.repositories.resolve(&source, &checkout)?;
    Ok(ResultRef::Snapshot(checkout.run(&source, &resolved)?))
}

fn checkout<'a>(
    worker: &'a BuildWorker<'_>,
    progress: &'a VertexProgress<'a>,
    cancel: &'a CancelFlag,
) -> Checkout<'a> {
    Checkout {
        lease: &worker.lease,
        access: Access {
            secrets: worker.secrets,
            ssh: worker.ssh,
            variables: worker.variables,
            cancel,
        },
        progress,
        bundles: Some(Bundles {
            fetcher: Fetcher::new(worker.engine, &worker.lease, progress, cancel),
            layouts: worker.layouts,
        }),
    }
}

/// Reads the source op of a repository.
pub(crate) fn read(source: &pb::SourceOp) -> Result<GitSource> {
    GitSource::of_op(source).map_err(|error| BuildError::invalid(error.to_string()))
}
