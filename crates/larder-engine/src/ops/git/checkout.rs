//! The files of a commit, as a snapshot.

use jiff::Timestamp;
use larder_llb::git::{GitSignature, GitSource, Mtime, Remote};
use larder_store::{ActiveSnapshot, Lease, NewSnapshot, RecordType, SnapshotId};
use larder_tree::apply::{self, ApplyOptions};
use larder_tree::beneath::{DirAttributes, Root};
use larder_tree::context::Tree;
use larder_tree::copy::{self, CopyOptions};

use super::auth::Auth;
use super::command::Git;
use super::repository::{Kept, Repository};
use super::submodules::{self, Submodule};
use super::{Access, Bundles, Resolved, bundle, git_dir, resolve, signature};
use crate::error::{BuildError, ErrorClass, Result};
use crate::progress::VertexProgress;

/// How deep submodules may have submodules.
const MAX_DEPTH: usize = 16;
/// How many submodules there may be, in all.
const MAX_SUBMODULES: usize = 1024;

/// Makes files out of commits.
pub(crate) struct Checkout<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) access: Access<'a>,
    pub(crate) progress: &'a VertexProgress<'a>,
    /// Where bundles come from; `None` where no source names one.
    pub(crate) bundles: Option<Bundles<'a>>,
}

/// A commit whose files are to be put somewhere.
struct Part {
    remote: Remote,
    commit: String,
    /// Where, relative to the top.
    path: String,
    depth: usize,
}

impl Checkout<'_> {
    /// Returns a snapshot of what `source` asks for, where its reference leads to `resolved`.
    pub(crate) fn run(&self, source: &GitSource, resolved: &Resolved) -> Result<SnapshotId> {
        let auth = Auth::new(source, self.access)?;
        let git = Git {
            access: self.access,
            auth: &auth,
        };
        if source.checkout_bundle {
            let repository = self.top_repository(&git, source, &resolved.object)?;
            let (active, root) = self.prepare(source)?;
            bundle::write(self, source, resolved, (&repository, &active, &root))?;
            drop(root);
            return Ok(active.commit()?);
        }
        let (active, root) = self.prepare(source)?;
        let commit = self.top(&git, source, resolved, &active, &root)?;
        if !source.skip_submodules {
            self.submodules(&git, source, &commit, &active, &root)?;
        }
        let is_whole = source.subdir.is_empty();
        if is_whole {
            drop(root);
            return Ok(active.commit()?);
        }
        self.part_of(source, active, root)
    }

    /// Returns when the commit was made that a reference leads to, in seconds since 1970.
    pub(crate) fn time(&self, source: &GitSource, resolved: &Resolved) -> Result<i64> {
        let auth = Auth::new(source, self.access)?;
        let git = Git {
            access: self.access,
            auth: &auth,
        };
        let repository = self.top_repository(&git, source, &resolved.object)?;
        let commit = repository.commit(resolved, self.progress)?;
        repository.commit_time(&commit)
    }

    /// Asks where the reference of a source leads: the server, or the bundle.
    pub(super) fn ask(&self, source: &GitSource) -> Result<Resolved> {
        let Some(locator) = &source.bundle else {
            return resolve::ask(source, self.access);
        };
        let auth = Auth::new(source, self.access)?;
        let git = Git {
            access: self.access,
            auth: &auth,
        };
        let repository = bundle::open(self, &git, source, locator, None)?;
        let told = repository.list(&source.reference);
        let text = format!("failed to read git bundle {locator}");
        let told = told.map_err(|failure| repository.failed(failure, &text))?;
        resolve::choose(source, &told)
    }

    /// Checks that the tag that a reference leads to, or its commit, is signed as is asked for. Fetches
    /// them if need be.
    pub(super) fn verify(
        &self,
        source: &GitSource,
        resolved: &Resolved,
        wanted: &GitSignature,
        now: Timestamp,
    ) -> Result<()> {
        let auth = Auth::new(source, self.access)?;
        let git = Git {
            access: self.access,
            auth: &auth,
        };
        let repository = self.top_repository(&git, source, &resolved.object)?;
        let commit = repository.commit(resolved, self.progress)?;
        let tag = if resolved.object == commit {
            None
        } else {
            Some(repository.object("tag", &resolved.object)?)
        };
        let commit = repository.object("commit", &commit)?;
        signature::verify(tag.as_deref(), &commit, wanted, now)
    }

    fn prepare(&self, source: &GitSource) -> Result<(ActiveSnapshot, Root)> {
        let description = format!(
            "git snapshot for {}#{}",
            source.remote.redacted(),
            source.reference
        );
        let active = self.lease.prepare(&NewSnapshot {
            parent: None,
            description: &description,
            record_type: RecordType::GitCheckout,
        })?;
        let root = Root::from_fd(larder_exec::mount::open(&active.mount()?)?);
        Ok((active, root))
    }

    fn repository<'r>(
        &'r self,
        git: &'r Git<'r>,
        remote: &'r Remote,
        commit: &str,
    ) -> Result<Repository<'r>> {
        let kept = Kept::of_server(remote, commit);
        Repository::open(git, self.lease, remote, &kept, self.progress)
    }

    /// Opens the repository that has the commit of the source itself, or will fetch it.
    fn top_repository<'r>(
        &'r self,
        git: &'r Git<'r>,
        source: &'r GitSource,
        object: &str,
    ) -> Result<Repository<'r>> {
        match &source.bundle {
            Some(locator) => bundle::open(self, git, source, locator, Some(object)),
            None => self.repository(git, &source.remote, object),
        }
    }

    /// Puts the files of the source itself in place, with `.git` if it is kept; returns the commit.
    fn top(
        &self,
        git: &Git<'_>,
        source: &GitSource,
        resolved: &Resolved,
        active: &ActiveSnapshot,
        root: &Root,
    ) -> Result<String> {
        let repository = self.top_repository(git, source, &resolved.object)?;
        let commit = repository.commit(resolved, self.progress)?;
        submodules::check_paths(&repository, &commit)?;
        unpack(&repository, source.mtime, &commit, active, root)?;
        // A part of a repository is none.
        if source.keep_git_dir && source.subdir.is_empty() {
            git_dir::write(&repository, resolved, &commit, active, root)?;
        }
        Ok(commit)
    }

    /// Puts the files of all submodules in place.
    fn submodules(
        &self,
        git: &Git<'_>,
        source: &GitSource,
        commit: &str,
        active: &ActiveSnapshot,
        root: &Root,
    ) -> Result<()> {
        let mut open = vec![Part {
            remote: source.remote.clone(),
            commit: commit.to_owned(),
            path: String::new(),
            depth: 0,
        }];
        let mut count = 0;
        while let Some(part) = open.pop() {
            let within = |error: BuildError| match part.path.as_str() {
                "" => error,
                path => error.context(format!("submodule `{path}`")),
            };
            let inner = self.one_part(git, source, &part, active, root);
            for Submodule {
                remote,
                commit,
                path,
            } in inner.map_err(within)?
            {
                count += 1;
                let path = match part.path.as_str() {
                    "" => path,
                    outer => format!("{outer}/{path}"),
                };
                if part.depth == MAX_DEPTH || count > MAX_SUBMODULES {
                    return Err(BuildError::invalid(format!(
                        "submodule `{path}`: a repository may have {MAX_SUBMODULES} submodules, \
                         {MAX_DEPTH} in one another"
                    )));
                }
                open.push(Part {
                    remote,
                    commit,
                    path,
                    depth: part.depth + 1,
                });
            }
        }
        Ok(())
    }

    /// Puts the files of one submodule in place, and returns its own. Its repository is free again
    /// when this is done: that of another may be the same.
    fn one_part(
        &self,
        git: &Git<'_>,
        source: &GitSource,
        part: &Part,
        active: &ActiveSnapshot,
        root: &Root,
    ) -> Result<Vec<Submodule>> {
        let repository = if part.depth == 0 {
            self.top_repository(git, source, &part.commit)?
        } else {
            self.repository(git, &part.remote, &part.commit)?
        };
        if part.depth > 0 {
            let resolved = Resolved {
                object: part.commit.clone(),
                peeled: None,
                reference: part.commit.clone(),
            };
            let commit = repository.commit(&resolved, self.progress)?;
            submodules::check_paths(&repository, &commit)?;
            let attributes = DirAttributes {
                mode: 0o755,
                owner: None,
                time: None,
            };
            root.create_dir_all(&part.path, attributes)?;
            let directory = root.subtree(&part.path)?;
            unpack(&repository, source.mtime, &commit, active, &directory)?;
        }
        submodules::list(&repository, &part.commit)
    }

    /// Returns a snapshot of the subdirectory that is asked for. Links lead as they would for a
    /// process whose root directory is the repository.
    fn part_of(&self, source: &GitSource, whole: ActiveSnapshot, root: Root) -> Result<SnapshotId> {
        let subdir = format!("/{}", source.subdir);
        let is_directory = root
            .metadata(&subdir)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
        if !is_directory {
            let message = format!(
                "failed to open subdir {}: no such directory in {}",
                source.subdir,
                source.remote.redacted()
            );
            return Err(BuildError::new(ErrorClass::NotFound, message));
        }
        let (active, target) = self.prepare(source)?;
        let options = CopyOptions {
            src: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            ..CopyOptions::default()
        };
        let tree = Tree::view(root.subtree(&subdir)?)?;
        copy::copy_within(&tree, &target, &options, active.quota())?;
        drop((tree, target, root, whole));
        Ok(active.commit()?)
    }
}

/// Puts the files of a commit in a directory.
fn unpack(
    repository: &Repository<'_>,
    mtime: Mtime,
    commit: &str,
    active: &ActiveSnapshot,
    root: &Root,
) -> Result<()> {
    // The archive of a commit has its time; that of a tree has the present.
    let tree = match mtime {
        Mtime::Commit => commit.to_owned(),
        Mtime::Checkout => format!("{commit}^{{tree}}"),
    };
    repository.archive(&tree, |stream| {
        let mut ignore_warnings = |_| {};
        let mut options = ApplyOptions::new(&mut ignore_warnings);
        options.quota = active.quota();
        apply::unpack(root, stream, options)?;
        Ok(())
    })
}
