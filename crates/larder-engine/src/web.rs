//! Files from web servers: each is asked for once in a run, and fetched only if it has changed.

mod partial;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use larder_llb::http::{HttpSignature, HttpSource};
use larder_llb::pb;
use larder_oci::Digest;
use larder_registry::{BlobSink, Secret, Validator, WebAnswer, WebFile, WebRequest};
use larder_store::{FetchedSource, Lease, SnapshotId};
use larder_tree::beneath::Root;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::cancel::CancelFlag;
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::explain::SourcePart;
use crate::openpgp::{self, Signers};
use crate::progress::VertexProgress;
use crate::request::SecretProvider;
use partial::Partial;

/// A file that was last modified so long before its server said so will not change unseen within
/// the second that `Last-Modified` counts in: RFC 9110, section 8.8.2.2.
const STABLE_SECONDS: i64 = 60;
/// Where what the user sends can be had, as far as LLB knows.
pub(crate) const UPLOADS: &str = "http://buildkit-session/";
/// As many characters as the ids of BuildKit's uploads have.
const ID_CHARS: usize = 25;
/// How much of it is read at once.
const BUFFER_BYTES: usize = 1 << 17;
/// Before the host's name: secrets for requests to it.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";
/// How HTTP writes times, and how it once did.
const TIME: &str = "%a, %d %b %Y %H:%M:%S GMT";
const OLD_TIMES: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// What a file on a web server is now.
#[derive(Debug, Clone)]
pub(crate) struct WebSource {
    /// The digest of its bytes.
    pub(crate) digest: Digest,
    /// What it is called.
    filename: String,
    /// When it was modified last, as HTTP writes times.
    last_modified: Option<String>,
    /// The tree that holds it; `None` where its digest is known and nobody has asked for more.
    snapshot: Option<SnapshotId>,
    /// What tells it from what it was in another build.
    pub(crate) part: SourcePart,
}

impl WebSource {
    /// Returns the op's digest.
    pub(crate) fn cache_digest(&self, source: &HttpSource) -> Digest {
        let time = self.last_modified.as_deref();
        source.cache_digest(&self.filename, &self.digest, time)
    }

    /// Returns when it was modified last, in seconds since 1970, if its server says so.
    pub(crate) fn modified_seconds(&self) -> Option<i64> {
        let time = self.last_modified.as_deref().and_then(parse_time)?;
        Some(time.as_second())
    }
}

/// What is remembered of a download, beside its tree. Written as JSON; one that can't be read is
/// none.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    digest: Digest,
    size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// As the server sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
    /// Whether that is old enough to be relied on.
    is_stable: bool,
    /// As the server sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disposition: Option<String>,
}

impl About {
    fn validator(&self) -> Option<Validator> {
        if let Some(etag) = &self.etag {
            return Some(Validator::Etag(etag.clone()));
        }
        let last_modified = self.last_modified.clone().filter(|_| self.is_stable)?;
        Some(Validator::Modified {
            last_modified,
            size_bytes: self.size_bytes,
        })
    }
}

/// Asks web servers, each once for a file.
pub(crate) struct WebFiles<'a> {
    engine: &'a Engine,
    lease: &'a Lease,
    asked: Mutex<HashMap<Digest, Arc<Asked>>>,
}

/// What came of asking, once that has ended. Who asks meanwhile waits.
type Asked = OnceLock<Result<WebSource>>;

/// A request, in the name of a vertex.
#[derive(Clone, Copy)]
pub(crate) struct WebFetch<'a> {
    pub(crate) source: &'a HttpSource,
    pub(crate) secrets: &'a dyn SecretProvider,
    pub(crate) progress: &'a VertexProgress<'a>,
    pub(crate) cancel: &'a CancelFlag,
}

impl<'a> WebFiles<'a> {
    pub(crate) fn new(engine: &'a Engine, lease: &'a Lease) -> Self {
        Self {
            engine,
            lease,
            asked: Mutex::default(),
        }
    }

    /// Returns what a file is now. One with a checksum is not asked for: it is what that says; but it is
    /// fetched if it must be signed, for its signature to be checked.
    ///
    /// # Errors
    /// When its server can't be asked, or does not have it, and when it is not signed as it must be.
    pub(crate) fn resolve(&self, fetch: WebFetch<'_>) -> Result<WebSource> {
        let found = self.find(fetch)?;
        if let Some(signature) = &fetch.source.signature {
            let snapshot = self.tree_of(fetch, &found)?;
            self.verify(signature, &found, &snapshot)?;
        }
        Ok(found)
    }

    fn find(&self, fetch: WebFetch<'_>) -> Result<WebSource> {
        let source = fetch.source;
        if let Some(digest) = &source.checksum
            && source.signature.is_none()
        {
            return Ok(WebSource {
                digest: digest.clone(),
                filename: source.file_name(None),
                last_modified: None,
                snapshot: None,
                part: SourcePart::new(shown(&source.url), [("the checksum", digest.as_str())]),
            });
        }
        let asked = self.asked(&source.request_id());
        let found = asked.get_or_init(|| self.ask(fetch));
        let found = found.as_ref().map_err(BuildError::duplicate).cloned()?;
        match &source.checksum {
            Some(wanted) if *wanted != found.digest => Err(mismatch(source, &found.digest, wanted)),
            _ => Ok(found),
        }
    }

    /// Checks who has signed a file.
    fn verify(
        &self,
        signature: &HttpSignature,
        found: &WebSource,
        snapshot: &SnapshotId,
    ) -> Result<()> {
        let signers = Signers {
            keys: &signature.public_keys,
            reject_expired: false,
            now: self.engine.now(),
        };
        let mount = self.lease.store().view(snapshot)?;
        let root = Root::from_fd(larder_exec::mount::open(&mount)?);
        let open = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = root.open_file(&found.filename, flags, Mode::empty());
            Ok(File::from(file.map_err(io::Error::other)?))
        };
        openpgp::verify(signers, &signature.signature, open).map_err(|error| {
            BuildError::invalid(format!("failed to verify pgp signature: {error}"))
        })
    }

    /// Returns the digest of a file that was asked for in this run.
    pub(crate) fn known(&self, source: &HttpSource) -> Option<Digest> {
        let asked = self.asked(&source.request_id());
        let found = asked.get()?.as_ref().ok()?;
        Some(found.digest.clone())
    }

    /// Returns the tree that holds a file, and downloads it if it is not in the store.
    ///
    /// # Errors
    /// As [`Self::resolve`], and when the file is not what it was found to be.
    pub(crate) fn load(&self, fetch: WebFetch<'_>) -> Result<SnapshotId> {
        let found = self.find(fetch)?;
        self.tree_of(fetch, &found)
    }

    fn tree_of(&self, fetch: WebFetch<'_>, found: &WebSource) -> Result<SnapshotId> {
        if let Some(snapshot) = &found.snapshot
            && self.lease.hold_snapshots(std::slice::from_ref(snapshot))?
        {
            return Ok(snapshot.clone());
        }
        let (_, Some((snapshot, about))) = self.fetch(fetch, &[])? else {
            let message = "a file that is not there is unchanged";
            return Err(BuildError::internal(message));
        };
        if about.digest == found.digest {
            return Ok(snapshot);
        }
        Err(mismatch(fetch.source, &about.digest, &found.digest))
    }

    /// Takes a file that the user sends for what a server would answer. Returns the URL that it is at
    /// in this run, as `filename`.
    pub(crate) fn take(&self, filename: &str, file: &mut dyn io::Read) -> Result<String> {
        let mut source = pb::SourceOp {
            identifier: UPLOADS.to_owned(),
            attrs: [("http.filename".to_owned(), filename.to_owned())].into(),
        };
        let mut partial = Partial::new(self.lease, &parse(&source)?)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut sink = partial.sink(None, None);
        loop {
            let count = match file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let message = "cannot read the context from standard input";
                    return Err(BuildError::invalid(message).with_source(error));
                }
                Ok(0) => break,
                Ok(count) => count,
            };
            sink.write(&buffer[..count]).map_err(cannot_store)?;
        }
        let (digest, _) = sink.finish();
        source.identifier.push_str(&digest.hex()[..ID_CHARS]);
        let http = parse(&source)?;
        let filename = http.file_name(None);
        let snapshot = partial.commit(&http, &filename, None)?;
        let found = WebSource {
            part: SourcePart::new("the context", [("the content", digest.as_str())]),
            digest,
            filename,
            last_modified: None,
            snapshot: Some(snapshot),
        };
        // The same file may be taken twice.
        let _ = self.asked(&http.request_id()).set(Ok(found));
        Ok(source.identifier)
    }

    fn asked(&self, id: &Digest) -> Arc<Asked> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(asked.entry(id.clone()).or_default())
    }

    fn ask(&self, fetch: WebFetch<'_>) -> Result<WebSource> {
        let source = fetch.source;
        let fetched = self.lease.fetched(&source.request_id())?;
        let known = fetched.into_iter().filter_map(|fetched| {
            let about: About = serde_json::from_slice(&fetched.about).ok()?;
            Some((fetched.snapshot, about))
        });
        let known: Vec<(SnapshotId, About)> = known.collect();
        let (answer, new) = self.fetch(fetch, &known)?;
        let (file, snapshot, about) = match (answer, new) {
            (WebAnswer::Unchanged(index, file), _) => {
                let mut with_validator =
                    known.into_iter().filter(|(_, it)| it.validator().is_some());
                let (snapshot, about) = with_validator
                    .nth(index)
                    .ok_or_else(|| BuildError::internal("an unknown file is unchanged"))?;
                (file, snapshot, about)
            }
            (WebAnswer::Fetched(file), Some((snapshot, about))) => (file, snapshot, about),
            (WebAnswer::Fetched(_), None) => {
                return Err(BuildError::internal("a download came to nothing"));
            }
        };
        let told = [
            ("ETag", about.etag.as_deref()),
            ("Last-Modified", about.last_modified.as_deref()),
            ("the content", Some(about.digest.as_str())),
        ];
        let told = told
            .into_iter()
            .filter_map(|(what, value)| Some((what, value?)));
        // Not every server repeats it where nothing has changed.
        let disposition = file.disposition.or(about.disposition.clone());
        Ok(WebSource {
            part: SourcePart::new(shown(&source.url), told),
            digest: about.digest,
            filename: source.file_name(disposition.as_deref()),
            last_modified: about
                .last_modified
                .as_deref()
                .and_then(parse_time)
                .map(show_time),
            snapshot: Some(snapshot),
        })
    }

    /// Asks a server for a file, and keeps what comes.
    fn fetch(
        &self,
        fetch: WebFetch<'_>,
        known: &[(SnapshotId, About)],
    ) -> Result<(WebAnswer, Option<(SnapshotId, About)>)> {
        fetch.cancel.check()?;
        let source = fetch.source;
        let validators = known.iter().filter_map(|(_, about)| about.validator());
        let validators: Vec<Validator> = validators.collect();
        let headers = source.headers.iter();
        let headers: Vec<_> = headers
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect();
        let authorization = authorization(source, fetch.secrets)?;
        let request = WebRequest {
            url: &source.url,
            headers: &headers,
            authorization: authorization.as_ref(),
        };
        let mut partial = Partial::new(self.lease, source)?;
        let mut sink = partial.sink(Some(fetch.progress), Some(fetch.cancel));
        let web = self.engine.web();
        let answer = web.fetch(&request, &validators, &mut sink);
        let answer = self.engine.tasks.until_canceled(fetch.cancel, answer)?;
        fetch.cancel.check()?;
        let answer = answer.map_err(|error| failed(source, error, authorization.is_some()))?;
        let WebAnswer::Fetched(file) = &answer else {
            return Ok((answer, None));
        };
        let (digest, size_bytes) = sink.finish();
        let filename = source.file_name(file.disposition.as_deref());
        let modified = file.last_modified.as_deref().and_then(parse_time);
        let snapshot = partial.commit(source, &filename, modified)?;
        let about = About {
            digest,
            size_bytes,
            etag: file.etag.clone(),
            last_modified: file.last_modified.clone().filter(|_| modified.is_some()),
            is_stable: is_stable(file),
            disposition: file.disposition.clone(),
        };
        if about.validator().is_some() {
            let fetched = FetchedSource {
                snapshot: snapshot.clone(),
                about: serde_json::to_vec(&about).unwrap_or_default(),
            };
            self.lease.add_fetched(&source.request_id(), &fetched)?;
        }
        Ok((answer, Some((snapshot, about))))
    }
}

/// The error for a file that is another than the one that is wanted.
fn mismatch(source: &HttpSource, got: &Digest, wanted: &Digest) -> BuildError {
    let url = shown(&source.url);
    let error = BuildError::invalid(format!(
        "digest mismatch for {url}: {got} (expected: {wanted})"
    ));
    match &source.checksum {
        Some(_) => error.with_hint(
            "if the file is the one that is wanted, change `--checksum`; else find out who changed it",
        ),
        None => error.with_hint("the file changed during the build: try again"),
    }
}

/// Reads a source that is a file on a web server.
///
/// # Errors
/// `Invalid` for an attribute that can't be used.
pub(crate) fn parse(source: &pb::SourceOp) -> Result<HttpSource> {
    let parsed = HttpSource::parse(source);
    let parsed = parsed.ok_or_else(|| BuildError::internal("another source is taken for http"))?;
    parsed.map_err(|error| BuildError::invalid(error.to_string()))
}

/// Returns the value of `Authorization` for a request: the named secret, else those for its host.
fn authorization(source: &HttpSource, secrets: &dyn SecretProvider) -> Result<Option<Secret>> {
    let secret = |name: &str| -> Result<Option<String>> {
        let unusable = |what: &str| {
            BuildError::new(
                ErrorClass::NotFound,
                format!("failed to retrieve HTTP auth secret {name}: {what}"),
            )
        };
        let found = secrets.secret(name);
        let Some(bytes) = found.map_err(|error| unusable("can't be read").with_source(error))?
        else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| unusable("no text"))?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    };
    if let Some(name) = &source.auth_header_secret {
        let value = secret(name)?.ok_or_else(|| {
            BuildError::new(
                ErrorClass::NotFound,
                format!("failed to retrieve HTTP auth secret {name}: not found"),
            )
            .with_hint(format!("give it with `--secret id={name},…`"))
        })?;
        return Ok(Some(Secret::from(value)));
    }
    let Some(host) = host_name(&source.url) else {
        return Ok(None);
    };
    if let Some(token) = secret(&format!("{TOKEN_SECRET}{host}"))? {
        return Ok(Some(Secret::from(format!("Bearer {token}"))));
    }
    Ok(secret(&format!("{HEADER_SECRET}{host}"))?.map(Secret::from))
}

/// Returns the error of a file that could not be had, with its URL and what to do.
fn failed(source: &HttpSource, error: larder_registry::Error, has_secret: bool) -> BuildError {
    let kind = error.kind();
    let host = host_name(&source.url).unwrap_or_default();
    let error = BuildError::from(error).without_hint();
    let error = error.context(shown(&source.url));
    let error = match kind {
        larder_registry::ErrorKind::Denied if has_secret => {
            error.with_hint(format!("the secret that was sent to `{host}` does not do"))
        }
        larder_registry::ErrorKind::Denied => error.with_hint(format!(
            "give a token with `--secret id={TOKEN_SECRET}{host},…`"
        )),
        larder_registry::ErrorKind::NotFound => error.with_hint("check the URL"),
        larder_registry::ErrorKind::Unavailable => error.with_hint(
            "check the URL, the network and the proxy settings; a file with `--checksum` that is in \
             the cache needs no server",
        ),
        larder_registry::ErrorKind::Config => error.with_hint(format!(
            "certificates to trust go into larder.toml: `[registry.\"{host}\"] ca = […]`"
        )),
        _ => error,
    };
    error.context("failed to load cache key")
}

fn cannot_store(error: io::Error) -> BuildError {
    let class = match error.kind() {
        io::ErrorKind::StorageFull => ErrorClass::Exhausted,
        _ => ErrorClass::Internal,
    };
    BuildError::new(class, "cannot store the file").with_source(error)
}

/// Returns where the authority of a URL begins and ends.
fn authority(url: &str) -> Option<(usize, usize)> {
    let start = url.find("://")? + "://".len();
    let length = url[start..].find(['/', '?', '#']);
    Some((start, length.map_or(url.len(), |length| start + length)))
}

/// Returns a URL as it may be shown: without the user and the password.
pub(crate) fn shown(url: &str) -> String {
    let Some((start, end)) = authority(url) else {
        return url.to_owned();
    };
    match url[start..end].rfind('@') {
        Some(at) => format!("{}xxxxx:xxxxx{}", &url[..start], &url[start + at..]),
        None => url.to_owned(),
    }
}

/// Returns the host of a URL, without its port.
fn host_name(url: &str) -> Option<&str> {
    let (start, end) = authority(url)?;
    let host = &url[start..end];
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    (!name.is_empty()).then_some(name)
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let formats = std::iter::once(TIME).chain(OLD_TIMES);
    let time = formats.filter_map(|format| DateTime::strptime(format, text).ok());
    let zoned = time.take(1).next()?.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp())
}

fn show_time(time: Timestamp) -> String {
    time.strftime(TIME).to_string()
}

/// Returns whether `Last-Modified` alone tells that a file is the same.
fn is_stable(file: &WebFile) -> bool {
    let time = |text: &Option<String>| text.as_deref().and_then(parse_time);
    let (Some(modified), Some(told)) = (time(&file.last_modified), time(&file.date)) else {
        return false;
    };
    told.as_second() - modified.as_second() >= STABLE_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_forms_of_http() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            let shown = parse_time(text).map(show_time);
            assert_eq!(
                shown.as_deref(),
                Some("Sun, 06 Nov 1994 08:49:37 GMT"),
                "{text}"
            );
        }
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn a_young_file_may_change_unseen() {
        let file = |date: &str| WebFile {
            last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
            date: Some(date.to_owned()),
            ..WebFile::default()
        };
        assert!(is_stable(&file("Sun, 06 Nov 1994 08:50:37 GMT")));
        assert!(!is_stable(&file("Sun, 06 Nov 1994 08:50:36 GMT")));
        assert!(!is_stable(&file("?")));
        assert!(!is_stable(&WebFile::default()));
    }

    #[test]
    fn urls_are_shown_without_passwords_and_known_by_their_hosts() {
        for (url, expected, host) in [
            ("https://x.test/a@b", "https://x.test/a@b", Some("x.test")),
            (
                "https://u:p@x.test:1/a",
                "https://xxxxx:xxxxx@x.test:1/a",
                Some("x.test"),
            ),
            (
                "http://u:p@q@[::1]:1?x",
                "http://xxxxx:xxxxx@[::1]:1?x",
                Some("::1"),
            ),
            ("http://", "http://", None),
        ] {
            assert_eq!(shown(url), expected);
            assert_eq!(host_name(url), host);
        }
    }
}
