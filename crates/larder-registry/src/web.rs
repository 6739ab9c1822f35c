//! Files from web servers, whatever they are.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, DATE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use crate::answer::unreachable;
use crate::blob::content_range;
use crate::endpoint::is_loopback;
use crate::error::Retry;
use crate::retry::{Retries, retry_of};
use crate::tls::{Direction, http_client};
use crate::transport::{MAX_REDIRECTS, is_redirect, location};
use crate::{BlobSink, Config, Error, ErrorKind, Secret};

/// Fetches files from web servers, with the certificates, retries and proxies of registries:
/// `[registry."host"]` holds for `https://host/` too. Clones share connections.
///
/// Nothing is opened before the first request.
#[derive(Clone)]
pub struct WebClient {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    /// By host, with the port if the URL has one.
    clients: Mutex<HashMap<String, reqwest::Client>>,
}

/// A file on a web server.
#[derive(Debug, Clone, Copy)]
pub struct WebRequest<'a> {
    /// Its address, `http` or `https`.
    pub url: &'a str,
    /// Further headers, by name.
    pub headers: &'a [(String, String)],
    /// The value of `Authorization`. It goes to the server of the URL only, not to those that it
    /// redirects to.
    pub authorization: Option<&'a Secret>,
}

/// What a server says of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebFile {
    /// `ETag`, without the mark of a weak one.
    pub etag: Option<String>,
    /// `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// `Date`, as sent: when the server said so.
    pub date: Option<String>,
    /// `Content-Disposition`, as sent.
    pub disposition: Option<String>,
    /// How long it is, where that is told.
    pub size_bytes: Option<u64>,
}

/// What tells whether a file that is here already is still the same: its `ETag`, or where there
/// is none, `Last-Modified` and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// `ETag`, without the mark of a weak one.
    Etag(String),
    /// `Last-Modified`. Only good if the file was older than a minute when it was fetched: before,
    /// it might have changed again within the same second.
    Modified {
        /// As the server sent it.
        last_modified: String,
        /// How long the file is.
        size_bytes: u64,
    },
}

/// What came of a request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebAnswer {
    /// It is what the validator of this index says, and nothing was fetched.
    Unchanged(usize, WebFile),
    /// It was fetched.
    Fetched(WebFile),
}

impl WebClient {
    /// Returns a client. Of `config`, credentials and mirrors mean nothing here.
    pub fn new(config: Config) -> Self {
        let clients = Mutex::default();
        Self {
            inner: Arc::new(Inner { config, clients }),
        }
    }

    /// Fetches a file into `sink`, unless it is still one of `known`: that costs one request
    /// (HEAD), and a second one where the server does not tell by HEAD. What breaks off is taken
    /// up again where the server's answers allow that, else anew.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`, `Corrupt`, `Config`, `Unsupported` and `Sink`. None
    /// names the URL, which may hold a password.
    ///
    /// # Cancellation
    /// Whenever it is dropped, `sink` holds the file's first bytes, as far as they came.
    pub async fn fetch(
        &self,
        request: &WebRequest<'_>,
        known: &[Validator],
        sink: &mut dyn BlobSink,
    ) -> Result<WebAnswer, Error> {
        let url = parse(request.url)?;
        let host = host_of(&url);
        let mut fetch = Fetch {
            client: self,
            request,
            url,
            known,
            sink,
            have_bytes: 0,
            first: None,
        };
        if !known.is_empty()
            && let Some(answer) = fetch.ask().await
        {
            return Ok(answer);
        }
        let mut retries = Retries::new(&self.inner.config, &host);
        loop {
            let before_bytes = fetch.have_bytes;
            match fetch.fetch_once().await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if fetch.have_bytes > before_bytes {
                        retries.reset();
                    }
                    retries.pause(error).await?;
                }
            }
        }
    }

    /// Returns the HTTP client for a server.
    fn client(&self, url: &Url) -> Result<reqwest::Client, Error> {
        let host = host_of(url);
        let mut clients = self
            .inner
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&host) {
            return Ok(client.clone());
        }
        let config = &self.inner.config;
        let section = config.registries.get(&host).cloned().unwrap_or_default();
        let is_loopback = is_loopback(&host);
        let client = http_client(&section, &config.user_agent, is_loopback, Direction::Down)?;
        clients.insert(host, client.clone());
        Ok(client)
    }
}

impl fmt::Debug for WebClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebClient")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

/// One file on its way.
struct Fetch<'a> {
    client: &'a WebClient,
    request: &'a WebRequest<'a>,
    url: Url,
    known: &'a [Validator],
    sink: &'a mut dyn BlobSink,
    have_bytes: u64,
    /// What the server said when the bytes in the sink came, if it said enough to go on from there.
    first: Option<WebFile>,
}

impl Fetch<'_> {
    /// Asks by HEAD whether the file is one of those that are known. What goes wrong here goes
    /// wrong again with GET, or was wrong with HEAD only.
    async fn ask(&self) -> Option<WebAnswer> {
        let answer = self.send(&Method::HEAD, &self.conditions()).await;
        let response = answer.ok()?;
        let is_usable = matches!(response.status().as_u16(), 200 | 304);
        self.unchanged(&response).filter(|_| is_usable)
    }

    /// Sends one request and takes what comes, until the end or until it breaks off.
    async fn fetch_once(&mut self) -> Result<WebAnswer, Error> {
        let headers = match &self.first {
            Some(first) => continuation(first, self.have_bytes),
            None => self.conditions(),
        };
        let mut response = self.send(&Method::GET, &headers).await?;
        let file = describe(&response);
        match response.status() {
            StatusCode::NOT_MODIFIED => {
                return self
                    .unchanged(&response)
                    .ok_or_else(|| lies("says that its file is unchanged, but not since when"));
            }
            StatusCode::OK => {
                self.restart()?;
                self.first = Some(file.clone()).filter(|_| can_continue(&response));
            }
            StatusCode::PARTIAL_CONTENT if self.first.is_some() => {
                let range = content_range(&response);
                if range.map(|(first, _)| first) != Some(self.have_bytes) {
                    self.restart()?;
                    let error = lies("sent another part of the file than was asked for");
                    return Err(error.with_retry(Retry::Backoff));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE if self.first.is_some() => {
                self.restart()?;
                let error = lies("has less of the file than it has sent");
                return Err(error.with_retry(Retry::Backoff));
            }
            status => return Err(refused(&response, status)),
        }
        if response.headers().contains_key(CONTENT_ENCODING) && !is_identity(&response) {
            let message = "the server compresses the file, which it was not asked to";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if let Some(rest_bytes) = response.content_length() {
            self.sink.size_known(self.have_bytes + rest_bytes);
        }
        let host = host_of(response.url());
        let breaks = |error| unreachable(&host, error);
        while let Some(chunk) = response.chunk().await.map_err(breaks)? {
            self.sink.write(&chunk).map_err(sink_failed)?;
            self.have_bytes += chunk.len() as u64;
        }
        Ok(WebAnswer::Fetched(self.first.take().unwrap_or(file)))
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.first = None;
        if self.have_bytes > 0 {
            self.have_bytes = 0;
            self.sink.restart().map_err(sink_failed)?;
        }
        Ok(())
    }

    /// Returns the headers that ask for the file only if it is none of those that are known.
    fn conditions(&self) -> HeaderMap {
        let etags = self.known.iter().filter_map(|known| match known {
            Validator::Etag(etag) => Some(etag.as_str()),
            Validator::Modified { .. } => None,
        });
        let etags: Vec<&str> = etags.collect();
        let mut headers = HeaderMap::new();
        if let Ok(etags) = HeaderValue::try_from(etags.join(", "))
            && !etags.is_empty()
        {
            headers.insert(IF_NONE_MATCH, etags);
        }
        if let [Validator::Modified { last_modified, .. }] = self.known
            && let Ok(since) = HeaderValue::try_from(last_modified)
        {
            headers.insert(IF_MODIFIED_SINCE, since);
        }
        headers
    }

    /// Returns the known file that an answer to those conditions is about.
    fn unchanged(&self, response: &Response) -> Option<WebAnswer> {
        let file = describe(response);
        let is_not_modified = response.status() == StatusCode::NOT_MODIFIED;
        // Servers need not repeat what they were asked about.
        let is_it = |known: &Validator| match known {
            Validator::Etag(etag) => match &file.etag {
                Some(now) => now == etag,
                None => is_not_modified && self.known.len() == 1,
            },
            Validator::Modified {
                last_modified,
                size_bytes,
            } => {
                let is_same_time = match &file.last_modified {
                    Some(now) => now == last_modified,
                    None => is_not_modified && self.known.len() == 1,
                };
                let is_same_size = file.size_bytes == Some(*size_bytes);
                is_same_time && (is_not_modified || is_same_size)
            }
        };
        let index = self.known.iter().position(is_it)?;
        Some(WebAnswer::Unchanged(index, file))
    }

    /// Sends a request and follows redirects: never from https to http, and with the
    /// authorization for the server of the URL only.
    async fn send(&self, method: &Method, headers: &HeaderMap) -> Result<Response, Error> {
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let client = self.client.client(&url)?;
            let message = client.request(method.clone(), url.clone());
            let message = self.fill(message, &url)?.headers(headers.clone());
            let host = host_of(&url);
            let response = message.send().await;
            let response = response.map_err(|error| unreachable(&host, error))?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            url = location(&response, &host)?;
        }
        Err(lies("redirects without end"))
    }

    fn fill(&self, mut message: RequestBuilder, url: &Url) -> Result<RequestBuilder, Error> {
        let bad = |what: &str| Error::new(ErrorKind::Config, format!("{what} can't be sent"));
        for (name, value) in self.request.headers {
            let header = HeaderName::try_from(name).ok();
            let header = header.zip(HeaderValue::try_from(value).ok());
            let (name, value) = header.ok_or_else(|| bad(&format!("the header `{name}`")))?;
            message = message.header(name, value);
        }
        if let Some(authorization) = self.request.authorization
            && url.origin() == self.url.origin()
        {
            let value = HeaderValue::try_from(authorization.expose());
            let mut value = value.map_err(|_| bad("the authorization"))?;
            value.set_sensitive(true);
            message = message.header(AUTHORIZATION, value);
        }
        Ok(message)
    }
}

/// Returns the headers that ask for the rest of a file, if it is still the same.
fn continuation(first: &WebFile, have_bytes: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let etag = first.etag.as_deref().and_then(|etag| etag.parse().ok());
    let range = format!("bytes={have_bytes}-").parse().ok();
    if let (Some(etag), Some(range)) = (etag, range) {
        headers.insert(IF_RANGE, etag);
        headers.insert(RANGE, range);
    }
    headers
}

/// Returns whether the rest of a file can be asked for later: by a strong `ETag`.
fn can_continue(response: &Response) -> bool {
    let etag = response.headers().get(ETAG);
    etag.is_some_and(|etag| etag.as_bytes().starts_with(b"\""))
}

fn describe(response: &Response) -> WebFile {
    let header = |name: HeaderName| {
        let value = response.headers().get(name)?.to_str().ok()?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    };
    let etag = header(ETAG);
    // The length of an answer to HEAD is that of the file; there is no body to measure.
    let size_bytes = header(reqwest::header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    WebFile {
        etag: etag.map(|etag| etag.strip_prefix("W/").unwrap_or(&etag).to_owned()),
        last_modified: header(LAST_MODIFIED),
        date: header(DATE),
        disposition: header(CONTENT_DISPOSITION),
        size_bytes,
    }
}

fn is_identity(response: &Response) -> bool {
    let encodings = response.headers().get_all(CONTENT_ENCODING);
    encodings.iter().all(|encoding| encoding == "identity")
}

fn parse(url: &str) -> Result<Url, Error> {
    let bad = |what: &str| Error::new(ErrorKind::Config, what);
    let url = Url::parse(url).map_err(|error| bad("no valid URL").with_source(error))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(bad("the URL is neither http nor https")),
    }
}

/// Returns the host of a URL, with the port if it is not the scheme's.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The message has BuildKit's words: people look for them.
fn refused(response: &Response, status: StatusCode) -> Error {
    let retry = retry_of(response);
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
        _ if retry != Retry::Never => ErrorKind::Unavailable,
        _ => ErrorKind::Unsupported,
    };
    let message = format!("invalid response status {}", status.as_u16());
    Error::new(kind, message)
        .with_retry(retry)
        .with_status(status.as_u16())
}

fn lies(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the server {what}"))
}

fn sink_failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Sink, "cannot store the file").with_source(error)
}
