//! Contexts and Dockerfiles that are fetched, or sent: a build reads them before it starts.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use larder_dockerfile::{HttpContext, Lowered, NamedContext, git_context};
use larder_llb::git::GitRef;
use larder_llb::{Definition, pb};
use larder_oci::ImageConfig;
use larder_store::SnapshotId;
use larder_tree::apply;
use larder_tree::beneath::Root;
use rustix::fs::{Mode, OFlags};

use super::Build;
use super::inputs::{read_in, read_limited};
use crate::cache::import::Imports;
use crate::cache::source::Sources;
use crate::entitlement::Granted;
use crate::error::{BuildError, Result};
use crate::history::{History, IgnoreFile, Notes};
use crate::network::StepNetworks;
use crate::policy;
use crate::request::{BuildRequest, DockerfileSource};
use crate::solve::{self, Job};
use crate::web::{WebFetch, parse, shown};
use crate::worker::BuildWorker;

/// What the file of a context is called.
const CONTEXT_FILE: &str = "context";
/// The build argument that keeps `.git` in a context.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// What a Dockerfile that is fetched is called.
const DOCKERFILE: &str = "Dockerfile";

/// What a URL leads to.
pub(super) enum Place {
    Repository(GitRef),
    /// On a web server.
    File,
}

/// Tells repositories from files.
///
/// # Errors
/// When it is neither, or the repository's options can't be used.
pub(super) fn place(url: &str) -> Result<Place> {
    match GitRef::parse(url) {
        Some(Ok(named)) => Ok(Place::Repository(named)),
        Some(Err(error)) => {
            let message = format!("invalid git context `{}`: {error}", shown(url));
            Err(BuildError::invalid(message))
        }
        None if url.starts_with("http://") || url.starts_with("https://") => Ok(Place::File),
        None => {
            let message = format!("unsupported context source `{}`", shown(url));
            Err(BuildError::invalid(message))
        }
    }
}

/// Returns what the named context at `url` stands for.
pub(super) fn named_context(url: &str) -> Result<NamedContext> {
    Ok(match place(url)? {
        Place::Repository(named) => NamedContext::Git(named),
        Place::File => NamedContext::Http(url.to_owned()),
    })
}

/// A context whose files a graph makes.
pub(super) struct RemoteContext {
    /// The graph.
    pub(super) definition: Arc<Definition>,
    /// Its result, to be read.
    pub(super) root: Root,
    /// What tells it from others; empty for what is never seen again.
    pub(super) name: String,
    /// Whether the user sent it.
    pub(super) is_sent: bool,
}

impl Build<'_> {
    /// Fetches the context at `url`. One that is no archive is the Dockerfile, unless another one
    /// was asked for.
    pub(super) fn fetch_context(
        &self,
        url: &str,
        request: &mut BuildRequest,
    ) -> Result<RemoteContext> {
        let found = place(url).map_err(|error| error.context("unable to prepare context"))?;
        if let Place::Repository(named) = found {
            return self.check_out(&named, request);
        }
        let file = HttpContext::File.definition(url).map_err(internal)?;
        let root = self.view(&self.solve_early(&file, request)?)?;
        if apply::is_archive(open(&root, CONTEXT_FILE)?)? {
            return self.unpacked(url, request);
        }
        if matches!(request.dockerfile, DockerfileSource::Default) {
            let text = read_in(&root, Path::new(CONTEXT_FILE));
            request.dockerfile = DockerfileSource::Text(text.map_err(unreadable)?);
        }
        Ok(RemoteContext {
            definition: Arc::new(file),
            root,
            name: url.to_owned(),
            is_sent: false,
        })
    }

    fn check_out(&self, named: &GitRef, request: &BuildRequest) -> Result<RemoteContext> {
        let asked = request.build_args.iter().rev();
        let mut asked = asked.filter(|(name, _)| name == KEEP_GIT_DIR);
        let keeps = |(_, value): &(_, String)| is_true(value);
        let keeps_git_dir = asked.next().is_some_and(keeps);
        let definition = git_context(named, keeps_git_dir).map_err(internal)?;
        let tree = self.solve_early(&definition, request)?;
        Ok(RemoteContext {
            definition: Arc::new(definition),
            root: self.view(&tree)?,
            name: named.redacted(),
            is_sent: false,
        })
    }

    /// Takes a context that the user sends: an archive.
    pub(super) fn take_context(
        &self,
        archive: &mut dyn Read,
        request: &BuildRequest,
    ) -> Result<RemoteContext> {
        let url = self.web.take(CONTEXT_FILE, archive)?;
        let context = self.unpacked(&url, request)?;
        Ok(RemoteContext {
            name: String::new(),
            is_sent: true,
            ..context
        })
    }

    /// Returns what the archive at `url` holds.
    fn unpacked(&self, url: &str, request: &BuildRequest) -> Result<RemoteContext> {
        let definition = HttpContext::Archive.definition(url).map_err(internal)?;
        let tree = self.solve_early(&definition, request)?;
        Ok(RemoteContext {
            definition: Arc::new(definition),
            root: self.view(&tree)?,
            name: url.to_owned(),
            is_sent: false,
        })
    }

    /// Fetches a Dockerfile.
    pub(super) fn fetch_dockerfile(&self, url: &str, request: &BuildRequest) -> Result<Vec<u8>> {
        if !matches!(place(url), Ok(Place::File)) {
            let url = shown(url);
            return Err(BuildError::invalid(format!(
                "`--file`: `{url}` is no URL of a file"
            )));
        }
        let source = pb::SourceOp {
            identifier: url.to_owned(),
            attrs: [("http.filename".to_owned(), DOCKERFILE.to_owned())].into(),
        };
        let source = parse(&policy::source(self.images.policy(), &source)?)?;
        let name = format!("[internal] load remote {DOCKERFILE}");
        let mut vertex = self.reporter.begin_internal(&name, url);
        let loaded = self.web.load(WebFetch {
            source: &source,
            secrets: &*request.secrets,
            progress: &vertex,
            cancel: self.cancel,
        });
        match &loaded {
            Ok(_) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        let root = self.view(&loaded?)?;
        read_limited(open(&root, DOCKERFILE)?).map_err(unreadable)
    }

    /// Makes the result of a graph that the frontend has to read. The build's own graph has the
    /// vertices again, and finds them done.
    ///
    /// # Errors
    /// Those of its steps.
    pub(super) fn solve_early(
        &self,
        definition: &Definition,
        request: &BuildRequest,
    ) -> Result<SnapshotId> {
        let mut lowered = Lowered::new(definition.clone(), ImageConfig::default());
        let images = self.police(&mut lowered, &Vec::new())?;
        let sources = Sources {
            engine: self.engine,
            lease: self.lease,
            reporter: self.reporter,
            cancel: self.cancel,
        };
        let imports = Imports::new(sources, Vec::new());
        let notes = Notes::default();
        let ignore = IgnoreFile {
            name: String::new(),
            patterns: Vec::new(),
        };
        let (store, flag) = (&self.engine.store, String::new());
        let nowhere = (String::new(), None);
        let history = History::new(store, nowhere, &lowered, ignore, flag, &notes);
        let (layouts, contexts, emptied) = Default::default();
        let worker = BuildWorker {
            engine: self.engine,
            lease: self.lease.clone(),
            lowered: &lowered,
            images: &images,
            layouts: &layouts,
            contexts: &contexts,
            policy: self.images.policy(),
            secrets: &*request.secrets,
            ssh: &*request.ssh,
            repositories: self.repositories,
            variables: &|name| std::env::var(name).ok(),
            host_ca: false,
            granted: &Granted::default(),
            networks: &StepNetworks::new(self.engine.config.build.network),
            history,
            emptied: &emptied,
            emptied_bytes: 0.into(),
            empties_cache_mounts: false,
            reports: Mutex::default(),
            imports: &imports,
            web: self.web,
            reporter: self.reporter,
            cancel: self.cancel,
            ahead: None,
            depth: 0,
        };
        let job = Job {
            worker: &worker,
            definition: &lowered.definition,
            reporter: self.reporter,
        };
        let nothing = || BuildError::internal("a context came to nothing");
        let limit = self.engine.config.worker.oci.max_parallelism;
        let solved = solve::solve(&[job], self.cancel, limit, &|_, solved, _| {
            worker.snapshot_of(&solved.ok_or_else(nothing)?.result)
        });
        let vertices = lowered.definition.vertices().iter();
        self.reporter.told_of(vertices.map(|vertex| &vertex.digest));
        let mut trees = solved.map_err(|failed| failed.error)?;
        trees.pop().ok_or_else(nothing)
    }

    /// Opens a tree of the store for reading.
    fn view(&self, tree: &SnapshotId) -> Result<Root> {
        let mount = self.engine.store.view(tree)?;
        Ok(Root::from_fd(larder_exec::mount::open(&mount)?))
    }
}

fn open(root: &Root, name: &str) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    Ok(root.open_file(name, flags, Mode::empty())?.into())
}

/// Reads a boolean as Go does; what is none is false.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn internal(error: larder_dockerfile::Error) -> BuildError {
    BuildError::internal("cannot make the graph of a context").with_source(error)
}

fn unreadable(error: std::io::Error) -> BuildError {
    BuildError::invalid("failed to read downloaded context").with_source(error)
}
