//! `.git`, where it is kept: the commit, what it is called, and where it is from.

use std::path::Path;

use larder_store::ActiveSnapshot;
use larder_tree::beneath::Root;

use super::Resolved;
use super::command::{Call, Failure};
use super::made::Made;
use super::repository::Repository;
use crate::error::{BuildError, ErrorClass, Result};

const GIT_DIR: Made = Made {
    name: ".git",
    mode: "u=rwX,go=rX",
};

/// Writes `.git` for a commit, checked out without a branch. It has no ancestors of the commit, no
/// hooks, and nothing that tells of this machine.
pub(super) fn write(
    repository: &Repository<'_>,
    resolved: &Resolved,
    commit: &str,
    active: &ActiveSnapshot,
    root: &Root,
) -> Result<()> {
    GIT_DIR.copy(repository, (active, root), |work| {
        make(repository, resolved, commit, work)
    })
}

fn make(repository: &Repository<'_>, resolved: &Resolved, commit: &str, work: &Path) -> Result<()> {
    let failed = |failure: Failure| repository.failed(failure, "failed to make `.git`");
    let written = |error: std::io::Error| {
        BuildError::new(ErrorClass::Exhausted, "cannot make `.git`")
            .with_source(std::io::Error::from(error.kind()))
    };
    fs_err::create_dir(work).map_err(written)?;
    let git_dir = work.join(".git");
    let run = |args: &[&str]| {
        repository
            .git
            .run(Call::on(&git_dir, args).within(work).locally())
    };
    let mut init = vec!["init", "--quiet", "--template="];
    init.extend((commit.len() > 40).then_some("--object-format=sha256"));
    let call = Call::new(&init).within(work);
    repository.git.run(call).map_err(failed)?;
    let object = &resolved.object;
    let reference = if resolved.reference.starts_with("refs/") {
        format!("+{object}:{}", resolved.reference)
    } else {
        object.clone()
    };
    let fetch = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--depth=1",
        "--update-head-ok",
    ];
    let from = ["--", "../repository", &reference];
    run(&[&fetch[..], &from].concat()).map_err(failed)?;
    run(&["update-ref", "--no-deref", "HEAD", commit]).map_err(failed)?;
    run(&["read-tree", commit]).map_err(failed)?;
    run(&["remote", "add", "origin", &repository.remote.redacted()]).map_err(failed)?;
    for left in ["FETCH_HEAD", "logs"] {
        let path = git_dir.join(left);
        let removed = if path.is_dir() {
            fs_err::remove_dir_all(&path)
        } else {
            fs_err::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(written(error));
            }
            _ => {}
        }
    }
    Ok(())
}
