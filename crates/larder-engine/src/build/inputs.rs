//! What a build reads before it starts: its context, the Dockerfile, the ignore files.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use larder_oci::Digest;
use larder_store::{ActiveSnapshot, NewSnapshot, RecordType};
use larder_tree::apply;
use larder_tree::beneath::Root;

use super::Build;
use super::remote::RemoteContext;
use crate::error::{BuildError, ErrorClass, Result};
use crate::history::IgnoreFile;
use crate::ops::local::ContextRoot;
use crate::request::{BuildRequest, ContextSource, DockerfileSource};

/// As large a Dockerfile or ignore file as is read.
const MAX_TEXT_BYTES: u64 = 16 << 20;
/// What tells an archive from a Dockerfile: enough for a whole block of any compression.
const SNIFFED_BYTES: u64 = 2 << 20;
/// Read where a Dockerfile has no ignore file of its own.
pub(crate) const IGNORE_FILE: &str = ".dockerignore";

/// A build's context.
pub(super) enum OpenContext {
    /// A directory of the user's.
    Local(ContextRoot),
    /// What was fetched, or sent.
    Remote(RemoteContext),
}

impl OpenContext {
    /// Returns its files.
    pub(super) fn root(&self) -> &Root {
        match self {
            Self::Local(local) => &local.root,
            Self::Remote(remote) => &remote.root,
        }
    }

    /// Returns what tells it from others; empty for what is never seen again.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Local(local) => local.cache_name.as_deref().unwrap_or_default(),
            Self::Remote(remote) => &remote.name,
        }
    }
}

/// The text of a build's Dockerfile, with where it was found.
pub(super) struct DockerfileText {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// The vertex that stands for reading it.
    pub(super) vertex: Digest,
    /// Its own ignore file, if there is one beside it.
    pub(super) ignore: Option<(String, Vec<u8>)>,
}

impl Build<'_> {
    /// Opens the build's context. A stream or a file that is no archive becomes the request's
    /// Dockerfile.
    pub(super) fn open_context(
        &self,
        source: ContextSource,
        request: &mut BuildRequest,
    ) -> Result<OpenContext> {
        match source {
            ContextSource::Directory(path) => Ok(OpenContext::Local(open_directory(&path)?)),
            ContextSource::Empty => Ok(OpenContext::Local(self.empty_context()?)),
            ContextSource::Remote(url) => {
                let context = self.fetch_context(&url, request)?;
                Ok(OpenContext::Remote(context))
            }
            ContextSource::Stream(stream) => self.open_stream(stream, request),
        }
    }

    fn open_stream(
        &self,
        mut stream: Box<dyn Read + Send>,
        request: &mut BuildRequest,
    ) -> Result<OpenContext> {
        let failed = |source| {
            BuildError::invalid("cannot read the context from standard input").with_source(source)
        };
        let mut head = Vec::new();
        let mut begin = stream.by_ref().take(SNIFFED_BYTES);
        begin.read_to_end(&mut head).map_err(failed)?;
        if apply::is_archive(&head[..])? {
            let mut whole = head.chain(stream);
            let context = self.take_context(&mut whole, request)?;
            return Ok(OpenContext::Remote(context));
        }
        if !matches!(request.dockerfile, DockerfileSource::Default) {
            return Err(BuildError::invalid(
                "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            ));
        }
        let mut rest = stream.take(MAX_TEXT_BYTES);
        rest.read_to_end(&mut head).map_err(failed)?;
        request.dockerfile = DockerfileSource::Text(head);
        Ok(OpenContext::Local(self.empty_context()?))
    }

    /// Returns an empty directory that lives as long as the build.
    fn empty_context(&self) -> Result<ContextRoot> {
        let active: ActiveSnapshot = self.lease.prepare(&NewSnapshot {
            parent: None,
            description: "local source for context",
            record_type: RecordType::LocalSource,
        })?;
        let root = Root::from_fd(larder_exec::mount::open(&active.mount()?)?);
        Ok(ContextRoot {
            root,
            cache_name: None,
            _empty: Some(active),
            stat_cache: Arc::default(),
        })
    }

    pub(super) fn read_dockerfile(
        &self,
        context: &OpenContext,
        request: &BuildRequest,
    ) -> Result<DockerfileText> {
        self.check_dockerfile(context, &request.dockerfile)?;
        let (name, found) = match &request.dockerfile {
            DockerfileSource::Text(bytes) => ("Dockerfile".to_owned(), Ok((bytes.clone(), None))),
            DockerfileSource::Remote(url) => {
                let bytes = self.fetch_dockerfile(url, request)?;
                ("Dockerfile".to_owned(), Ok((bytes, None)))
            }
            DockerfileSource::Path(path) => {
                let name = path.file_name().map_or_else(
                    || path.display().to_string(),
                    |name| name.to_string_lossy().into_owned(),
                );
                let found = match context {
                    OpenContext::Local(local) => {
                        read_outside(path).or_else(|_| read_inside(&local.root, path))
                    }
                    OpenContext::Remote(remote) if path.is_absolute() && !remote.is_sent => {
                        read_outside(path)
                    }
                    OpenContext::Remote(remote) => read_inside(&remote.root, path),
                };
                (name, found)
            }
            DockerfileSource::Default => {
                let context = context.root();
                let upper = read_inside(context, Path::new("Dockerfile"));
                match upper {
                    Ok(found) => ("Dockerfile".to_owned(), Ok(found)),
                    Err(error) => match read_inside(context, Path::new("dockerfile")) {
                        Ok(found) => ("dockerfile".to_owned(), Ok(found)),
                        Err(_) => ("Dockerfile".to_owned(), Err(error)),
                    },
                }
            }
        };
        let mut vertex = self
            .reporter
            .begin_internal(&format!("[internal] load build definition from {name}"), "");
        match found {
            Ok((bytes, ignore)) => {
                let status = vertex.status("transferring dockerfile:", 0);
                status.set(bytes.len() as u64);
                status.done();
                vertex.complete();
                Ok(DockerfileText {
                    name,
                    bytes,
                    vertex: vertex.digest().clone(),
                    ignore,
                })
            }
            Err(source) => {
                let cause = match source.kind() {
                    std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                    _ => source.to_string(),
                };
                let error = BuildError::new(
                    ErrorClass::NotFound,
                    format!("failed to read dockerfile: open {name}: {cause}"),
                );
                vertex.fail(&error.full_message());
                Err(error)
            }
        }
    }

    /// Reads what of the context is left out; nothing of one that is fetched, as in BuildKit.
    pub(super) fn read_ignore(
        &self,
        context: &OpenContext,
        text: &DockerfileText,
    ) -> Result<IgnoreFile> {
        let OpenContext::Local(context) = context else {
            return Ok(IgnoreFile {
                name: IGNORE_FILE.to_owned(),
                patterns: Vec::new(),
            });
        };
        let mut vertex = self
            .reporter
            .begin_internal("[internal] load .dockerignore", "");
        let found = match &text.ignore {
            Some(own) => Ok(own.clone()),
            None => read_ignore_file(&context.root).map(|bytes| (IGNORE_FILE.to_owned(), bytes)),
        };
        let patterns = found.and_then(|(name, bytes)| {
            let status = vertex.status("transferring context:", 0);
            // BuildKit tells two bytes where there is no file.
            status.set((bytes.len() as u64).max(2));
            status.done();
            let patterns = parse_ignore(&name, &bytes)?;
            Ok(IgnoreFile { name, patterns })
        });
        match &patterns {
            Ok(_) => vertex.complete(),
            Err(error) => vertex.fail(&error.full_message()),
        };
        patterns
    }
}

/// Returns what the ignore file in a context leaves out.
pub(super) fn read_ignore_patterns(context: &Root) -> Result<Vec<String>> {
    parse_ignore(IGNORE_FILE, &read_ignore_file(context)?)
}

pub(crate) fn parse_ignore(name: &str, bytes: &[u8]) -> Result<Vec<String>> {
    larder_dockerfile::parse_ignore(bytes)
        .map_err(|error| BuildError::invalid(format!("cannot read {name}")).with_source(error))
}

/// Reads the ignore file in a context. One that is there and can't be read is an error: what it
/// hides must not end up in an image.
pub(crate) fn read_ignore_file(context: &Root) -> Result<Vec<u8>> {
    match read_in(context, Path::new(IGNORE_FILE)) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => {
            Err(BuildError::invalid(format!("cannot read {IGNORE_FILE}")).with_source(error))
        }
    }
}

/// Opens a directory of the user's.
pub(super) fn open_directory(path: &Path) -> Result<ContextRoot> {
    let failed = |what: &str| {
        BuildError::new(
            ErrorClass::NotFound,
            format!(
                "unable to prepare context: path {:?} {what}",
                path.display().to_string()
            ),
        )
    };
    let absolute = fs_err::canonicalize(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("not found"),
        _ => failed("can't be read").with_source(std::io::Error::from(error.kind())),
    })?;
    if !absolute.is_dir() {
        return Err(failed("is not a directory"));
    }
    let root = Root::open(&absolute)?;
    Ok(ContextRoot {
        root,
        cache_name: Some(unique_name(&absolute)),
        _empty: None,
        stat_cache: Arc::default(),
    })
}

/// Names a path as no other is named, also where names are not UTF-8.
fn unique_name(path: &Path) -> String {
    let shown = || {
        let bytes = path.as_os_str().as_encoded_bytes();
        format!("{} {}", path.display(), Digest::sha256(bytes))
    };
    path.to_str().map_or_else(shown, str::to_owned)
}

pub(crate) type FoundText = (Vec<u8>, Option<(String, Vec<u8>)>);

/// Reads a Dockerfile by the working directory, with the ignore file beside it.
pub(crate) fn read_outside(path: &Path) -> std::io::Result<FoundText> {
    let bytes = read_limited(fs_err::File::open(path)?)?;
    let ignore = ignore_beside(path);
    let ignore = read_limited_file(&ignore).map(|bytes| (name_of(&ignore), bytes));
    Ok((bytes, ignore))
}

fn read_limited_file(path: &Path) -> Option<Vec<u8>> {
    read_limited(fs_err::File::open(path).ok()?).ok()
}

/// Reads a Dockerfile in the context, with the ignore file beside it.
fn read_inside(context: &Root, path: &Path) -> std::io::Result<FoundText> {
    let bytes = read_in(context, path)?;
    let ignore = ignore_beside(path);
    let ignore = read_in(context, &ignore)
        .ok()
        .map(|bytes| (name_of(&ignore), bytes));
    Ok((bytes, ignore))
}

pub(super) fn read_in(root: &Root, path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let file = root.open_file(path, flags, rustix::fs::Mode::empty())?;
    read_limited(std::fs::File::from(file))
}

pub(super) fn read_limited(file: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(std::io::Error::other("larger than 16 MiB"));
    }
    Ok(bytes)
}

fn ignore_beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".dockerignore");
    name.into()
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
