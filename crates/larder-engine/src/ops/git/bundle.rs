//! Bundles: commits in a file, which is a blob of a registry or an OCI layout, or a result.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use larder_llb::blob::BlobLocator;
use larder_llb::git::{GitSource, is_commit};
use larder_store::ActiveSnapshot;
use larder_tree::beneath::Root;

use super::command::{Call, Failure, Git};
use super::made::Made;
use super::repository::{Kept, Repository};
use super::{Checkout, Resolved};
use crate::error::{BuildError, ErrorClass, Result};
use crate::fetch::Fetcher;
use crate::images::Layouts;
use crate::ops::blob;

/// The name of a bundle that is a result.
const NAME: &str = "bundle";
const BUNDLE: Made = Made {
    name: NAME,
    mode: "u=rw,go=r",
};
/// As much as is read of a bundle in search of the kind of its hashes, which stands at its beginning.
const MAX_HEAD_BYTES: u64 = 4096;
/// What bundles with hashes of SHA-256 say.
const SHA256: &[u8] = b"@object-format=sha256\n";

/// Where bundles come from.
#[derive(Clone, Copy)]
pub(crate) struct Bundles<'a> {
    pub(crate) fetcher: Fetcher<'a>,
    pub(crate) layouts: &'a Layouts,
}

impl Bundles<'_> {
    /// Returns the blob; fetches it if the store lacks it.
    fn blob(&self, locator: &BlobLocator) -> Result<File> {
        let fetched = blob::fetch(&self.fetcher, locator, self.layouts);
        fetched.map_err(|error| {
            error.context(format!("failed to fetch git bundle {}", locator.image_ref))
        })?;
        Ok(self.fetcher.lease.store().open_blob(&locator.digest)?)
    }

    fn is_sha256(&self, locator: &BlobLocator) -> Result<bool> {
        is_sha256(self.blob(locator)?).map_err(|error| {
            BuildError::new(ErrorClass::Exhausted, "cannot read a git bundle").with_source(error)
        })
    }
}

/// Opens the repository that has what a bundle has; `wanted` is a commit that must be there.
pub(super) fn open<'r>(
    checkout: &'r Checkout<'_>,
    git: &'r Git<'r>,
    source: &'r GitSource,
    locator: &BlobLocator,
    wanted: Option<&str>,
) -> Result<Repository<'r>> {
    let bundles = checkout
        .bundles
        .ok_or_else(|| BuildError::internal("bundles come from nowhere"))?;
    let is_sha256 = match wanted.or(Some(&source.checksum)) {
        Some(commit) if is_commit(commit) => commit.len() > 40,
        _ => bundles.is_sha256(locator)?,
    };
    let kept = Kept::of_bundle(locator, is_sha256);
    let remote = &source.remote;
    let repository = Repository::open(git, checkout.lease, remote, &kept, checkout.progress)?;
    let failed = |failure: Failure| {
        let text = format!("failed to import git bundle {}", locator.image_ref);
        repository.failed(failure, &text)
    };
    let is_there = || wanted.is_some_and(|commit| repository.peel(commit).is_some());
    if !is_there() && !repository.has_references().map_err(failed)? {
        let bundle = bundles.blob(locator)?;
        repository.import(bundle).map_err(failed)?;
    }
    match wanted {
        Some(commit) if !is_there() => {
            let message = format!("commit {commit} not found in bundle {}", locator.image_ref);
            Err(BuildError::new(ErrorClass::NotFound, message))
        }
        _ => Ok(repository),
    }
}

/// Whether a bundle has hashes of SHA-256.
fn is_sha256(bundle: impl io::Read) -> io::Result<bool> {
    let mut head = BufReader::new(bundle.take(MAX_HEAD_BYTES));
    let mut line = Vec::new();
    // The version.
    head.read_until(b'\n', &mut line)?;
    loop {
        line.clear();
        head.read_until(b'\n', &mut line)?;
        if !line.starts_with(b"@") {
            return Ok(false);
        }
        if line == SHA256 {
            return Ok(true);
        }
    }
}

/// Writes a bundle of the commit and all its ancestors.
pub(super) fn write(
    checkout: &Checkout<'_>,
    source: &GitSource,
    resolved: &Resolved,
    (repository, active, root): (&Repository<'_>, &ActiveSnapshot, &Root),
) -> Result<()> {
    let commit = repository.commit(resolved, checkout.progress)?;
    repository.complete(&resolved.object, checkout.progress)?;
    let object = if source.has_tag() {
        &resolved.object
    } else {
        &commit
    };
    BUNDLE.copy(repository, (active, root), |work| {
        make(repository, work, object, &source.bundle_reference())
    })
}

/// Makes a bundle in `work`, in a repository of its own: it has no reference but this one.
fn make(repository: &Repository<'_>, work: &Path, object: &str, reference: &str) -> Result<()> {
    let failed = |failure: Failure| {
        let text = format!("failed to create git bundle for {object}");
        repository.failed(failure, &text)
    };
    fs_err::create_dir(work).map_err(|error| {
        BuildError::new(ErrorClass::Exhausted, "cannot make a git bundle")
            .with_source(io::Error::from(error.kind()))
    })?;
    let git_dir = work.join("repository");
    let run = |args: &[&str]| {
        let call = Call::on(&git_dir, args).within(work).locally();
        repository.git.run(call).map(drop)
    };
    let mut init = vec!["init", "--quiet", "--bare", "--template="];
    init.extend((object.len() > 40).then_some("--object-format=sha256"));
    let fetched = format!("+{object}:{reference}");
    let fetch = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--",
        "../repository",
        &fetched,
    ];
    // One thread finds the same deltas each time.
    let create = ["-c", "pack.threads=1", "bundle", "create", "--quiet"];
    let create = [&create[..], &[NAME, reference]].concat();
    run(&init).map_err(failed)?;
    run(&fetch).map_err(failed)?;
    run(&create).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_hashes_stands_at_the_beginning() {
        for (head, expected) in [
            (
                &b"# v3 git bundle\n@object-format=sha256\n01 refs/x\n"[..],
                true,
            ),
            (b"# v3 git bundle\n@filter=x\n@object-format=sha256\n", true),
            (
                b"# v2 git bundle\n01 refs/x\n@object-format=sha256\n",
                false,
            ),
            (b"# v3 git bundle\n@object-format=sha1\n\nPACK", false),
            (b"", false),
            (&[b'@'; 8192], false),
        ] {
            assert_eq!(is_sha256(head).unwrap(), expected);
        }
    }
}
