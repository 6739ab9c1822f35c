//! Requests to registries: schemes, redirects, authentication, retries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use larder_oci::{ImageRef, media_type};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::endpoint::{Endpoint, is_loopback};
use crate::error::Retry;
use crate::tls::http_client;
use crate::{Config, Error, ErrorKind, RegistryConfig};

/// Blobs that are fetched from one registry at once, as BuildKit does.
const MAX_DOWNLOADS: usize = 4;
/// As many redirects as browsers follow at least.
const MAX_REDIRECTS: usize = 10;
/// Attempts at a registry to which no connection can be made.
const CONNECT_ATTEMPTS: u32 = 2;
/// More of an error's text is not read, and not shown.
const MAX_ERROR_BYTES: usize = 64 << 10;
const MAX_MESSAGE_CHARS: usize = 300;

/// Sends requests, and remembers what it learns about each registry.
pub(crate) struct Transport {
    pub(crate) config: Config,
    authenticator: Authenticator,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What is known about a registry.
pub(crate) struct Host {
    client: Client,
    /// To be tried in this order.
    schemes: &'static [&'static str],
    /// The scheme that worked.
    working: OnceLock<&'static str>,
    downloads: Semaphore,
}

/// A request for something in a repository.
pub(crate) struct Request<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) image_ref: &'a ImageRef,
    pub(crate) method: Method,
    pub(crate) subject: Subject<'a>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// A manifest, by tag or digest.
    Manifest(&'a str),
    /// A blob by its digest, from an offset in bytes on.
    Blob(&'a str, u64),
}

impl Transport {
    pub(crate) fn new(config: Config) -> Self {
        let authenticator = Authenticator::new(
            Arc::clone(&config.credentials),
            Arc::clone(&config.observer),
        );
        Self {
            config,
            authenticator,
            hosts: Mutex::default(),
        }
    }

    /// Returns what is known about the registry at `endpoint`.
    pub(crate) fn host(&self, endpoint: &Endpoint) -> Result<Arc<Host>, Error> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(&endpoint.config_name) {
            return Ok(Arc::clone(host));
        }
        let default = RegistryConfig::default();
        let section = self.config.registries.get(&endpoint.config_name);
        let section = section.unwrap_or(&default);
        let host = Arc::new(Host {
            client: http_client(
                section,
                &self.config.user_agent,
                is_loopback(&endpoint.host),
            )?,
            schemes: schemes(section, &endpoint.host),
            working: OnceLock::new(),
            downloads: Semaphore::new(MAX_DOWNLOADS),
        });
        hosts.insert(endpoint.config_name.clone(), Arc::clone(&host));
        Ok(host)
    }

    /// Sends a request once, and once more with what the registry wants to see. Returns an answer
    /// that says success.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let host = self.host(request.endpoint)?;
        let mut authorization = self.authenticator.granted(request.endpoint);
        let mut was_challenged = false;
        loop {
            let (response, is_elsewhere) = host.exchange(request, authorization.as_ref()).await?;
            let is_challenge = response.status() == StatusCode::UNAUTHORIZED && !is_elsewhere;
            if !is_challenge || was_challenged {
                return checked(request, response, is_elsewhere).await;
            }
            was_challenged = true;
            let answer = self
                .authenticator
                .answer(&host, request.endpoint, &response);
            authorization = Some(answer.await.map_err(|error| match error.kind() {
                ErrorKind::Denied => access_denied(request, &error.to_string()),
                _ => error,
            })?);
        }
    }

    /// Sends a request until it succeeds, or there is no hope.
    pub(crate) async fn send_patiently(&self, request: &Request<'_>) -> Result<Response, Error> {
        let mut retries = Retries::new(&self.config, &request.endpoint.host);
        loop {
            match self.send(request).await {
                Ok(response) => return Ok(response),
                Err(error) => retries.pause(error).await?,
            }
        }
    }
}

impl Host {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Bounds how many blobs are fetched from the registry at once.
    pub(crate) fn downloads(&self) -> &Semaphore {
        &self.downloads
    }

    /// Sends a request by the scheme that works, and follows redirects. Returns whether the answer
    /// comes from another server than the registry's.
    async fn exchange(
        &self,
        request: &Request<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, bool), Error> {
        let schemes = match self.working.get() {
            Some(working) => std::slice::from_ref(working),
            None => self.schemes,
        };
        let (last, others) = schemes.split_last().expect("a host has a scheme");
        for scheme in others {
            match self.follow(request, scheme, authorization).await {
                Err(Unanswered::Transport(_, error)) if error.is_connect() => {}
                answer => return self.settle(scheme, answer),
            }
        }
        let answer = self.follow(request, last, authorization).await;
        self.settle(last, answer)
    }

    fn settle(
        &self,
        scheme: &'static str,
        answer: Result<(Response, bool), Unanswered>,
    ) -> Result<(Response, bool), Error> {
        match answer {
            Ok(answer) => {
                // Another request may have found it first.
                let _ = self.working.set(scheme);
                Ok(answer)
            }
            Err(Unanswered::Transport(server, error)) => Err(unreachable(&server, error)),
            Err(Unanswered::Redirect(error)) => Err(error),
        }
    }

    /// Sends a request and follows redirects. The `Authorization` goes to the registry only, and
    /// no redirect leads from https to http.
    async fn follow(
        &self,
        request: &Request<'_>,
        scheme: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<(Response, bool), Unanswered> {
        let host = &request.endpoint.host;
        let bad_redirect = |what: &str| {
            let message = format!("`{host}` {what}");
            Unanswered::Redirect(Error::new(ErrorKind::Corrupt, message))
        };
        let (suffix, accept, offset) = match request.subject {
            Subject::Manifest(name) => (format!("manifests/{name}"), MANIFEST_TYPES, 0),
            Subject::Blob(digest, offset) => (format!("blobs/{digest}"), "*/*", offset),
        };
        let first = format!("{scheme}://{host}{}", request.endpoint.target(&suffix));
        let first = Url::parse(&first).map_err(|_| bad_redirect("is not a host"))?;
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let is_elsewhere = url.origin() != first.origin();
            let mut message = self
                .client
                .request(request.method.clone(), url.clone())
                .header(ACCEPT, accept);
            if offset > 0 {
                message = message.header(RANGE, format!("bytes={offset}-"));
            }
            if let Some(authorization) = authorization.filter(|_| !is_elsewhere) {
                message = message.header(AUTHORIZATION, authorization);
            }
            let response = message.send().await.map_err(|error| {
                let server = url.host_str().unwrap_or_default().to_owned();
                Unanswered::Transport(server, error)
            })?;
            if !is_redirect(response.status()) {
                return Ok((response, is_elsewhere));
            }
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| url.join(location).ok())
                .ok_or_else(|| bad_redirect("redirects to nowhere"))?;
            let is_http = matches!(next.scheme(), "http" | "https");
            if !is_http || (url.scheme() == "https" && next.scheme() == "http") {
                return Err(bad_redirect("redirects from https to something less safe"));
            }
            url = next;
        }
        Err(bad_redirect("redirects without end"))
    }
}

/// Why no answer came.
enum Unanswered {
    /// From this server.
    Transport(String, reqwest::Error),
    Redirect(Error),
}

/// All types of manifests that larder reads, and other registries' manifests in general.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns the schemes to try at a registry.
fn schemes(section: &RegistryConfig, host: &str) -> &'static [&'static str] {
    match (section.http, section.insecure) {
        (Some(true), _) => &["http"],
        (_, Some(true)) => &["https", "http"],
        (None, _) if is_loopback(host) => &["https", "http"],
        _ => &["https"],
    }
}

/// Returns `response` if it says success.
async fn checked(
    request: &Request<'_>,
    response: Response,
    is_elsewhere: bool,
) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let host = &request.endpoint.host;
    // Where a registry redirects to, an address works for a short time; a new one may do.
    let retry = if is_elsewhere {
        Retry::Backoff
    } else {
        retry_of(&response)
    };
    let reason = server_message(response).await;
    if retry != Retry::Never {
        let message = format!(
            "`{host}` answered {status} to a request for {}",
            subject(request)
        );
        return Err(Error::new(ErrorKind::Unavailable, message).with_retry(retry));
    }
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => access_denied(request, &reason),
        StatusCode::NOT_FOUND => Error::new(
            ErrorKind::NotFound,
            format!("{}: not found", subject(request)),
        ),
        status => {
            let what = subject(request);
            let message = format!("`{host}` refused a request for {what} with {status}: {reason}");
            Error::new(ErrorKind::Unsupported, message)
        }
    })
}

/// The message has BuildKit's words: people look for them.
fn access_denied(request: &Request<'_>, reason: &str) -> Error {
    let message = format!(
        "{}: pull access denied, repository does not exist or may require authorization: \
         server message: {reason}",
        subject(request)
    );
    Error::new(ErrorKind::Denied, message)
}

fn subject(request: &Request<'_>) -> String {
    match request.subject {
        Subject::Manifest(_) => request.image_ref.to_string(),
        Subject::Blob(digest, _) => format!("blob `{digest}` of {}", request.image_ref),
    }
}

/// Returns whether, after this answer, the same request may do better.
pub(crate) fn retry_of(response: &Response) -> Retry {
    if !matches!(
        response.status().as_u16(),
        408 | 429 | 500 | 502 | 503 | 504
    ) {
        return Retry::Never;
    }
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match seconds {
        Some(seconds) => Retry::After(Duration::from_secs(seconds)),
        None => Retry::Backoff,
    }
}

/// Returns an error for a request that `server` did not answer, or not to the end.
pub(crate) fn unreachable(server: &str, error: reqwest::Error) -> Error {
    let is_connect = error.is_connect();
    let distrusts = is_connect && is_tls_failure(&error);
    let message = match (distrusts, is_connect) {
        (true, _) => format!("cannot make a secure connection to `{server}`"),
        (false, true) => format!("cannot reach `{server}`"),
        (false, false) => format!("the connection to `{server}` broke"),
    };
    let (kind, retry) = match (distrusts, is_connect) {
        (true, _) => (ErrorKind::Config, Retry::Never),
        (false, true) => (ErrorKind::Unavailable, Retry::Seldom),
        (false, false) => (ErrorKind::Unavailable, Retry::Backoff),
    };
    // An address that a registry redirects to may hold a signature.
    Error::new(kind, message)
        .with_source(error.without_url())
        .with_retry(retry)
}

/// Returns whether TLS failed over what was said, not over the connection.
fn is_tls_failure(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<std::io::Error>() else {
        return error.source().is_some_and(is_tls_failure);
    };
    // An I/O error's source is that of the error within, not the error within.
    let within = error
        .get_ref()
        .map(|within| -> &(dyn std::error::Error + 'static) { within });
    error.kind() == std::io::ErrorKind::InvalidData || within.is_some_and(is_tls_failure)
}

/// Reads an answer of at most `max_bytes`.
pub(crate) async fn read_limited(
    mut response: Response,
    max_bytes: usize,
    server: &str,
) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| unreachable(server, error))?
    {
        if body.len() + chunk.len() > max_bytes {
            let message = format!("`{server}` sends more than {max_bytes} bytes");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns what the server says in an error's body, on one line, or its status.
pub(crate) async fn server_message(mut response: Response) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let mut body = Vec::new();
    // A body that is too long, or breaks off, is told as far as it came.
    while body.len() < MAX_ERROR_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    let text = match serde_json::from_slice::<Body>(&body) {
        Ok(Body { errors }) => errors
            .iter()
            .map(|entry| format!("{}: {}", entry.code.to_lowercase(), entry.message))
            .collect::<Vec<_>>()
            .join(", "),
        Err(_) => String::new(),
    };
    if text.is_empty() {
        return status.to_string();
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars()
        .take(MAX_MESSAGE_CHARS)
        .map(printable)
        .collect()
}

/// Counts failures in a row, and waits in between.
pub(crate) struct Retries<'a> {
    config: &'a Config,
    host: &'a str,
    failures_count: u32,
}

impl<'a> Retries<'a> {
    pub(crate) fn new(config: &'a Config, host: &'a str) -> Self {
        Self {
            config,
            host,
            failures_count: 0,
        }
    }

    /// Begins to count anew: something was achieved.
    pub(crate) fn reset(&mut self) {
        self.failures_count = 0;
    }

    /// Waits before the next attempt. Returns `error` if there should be none.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.failures_count += 1;
        let policy = &self.config.retry;
        let attempts_count = match error.retry() {
            Retry::Never => 0,
            Retry::Seldom => policy.attempts_count.min(CONNECT_ATTEMPTS),
            Retry::Backoff | Retry::After(_) => policy.attempts_count,
        };
        let delay = match error.retry() {
            Retry::After(delay) => delay,
            _ => policy.delay(self.failures_count),
        };
        if self.failures_count >= attempts_count || delay > policy.longest_delay {
            return Err(error);
        }
        tracing::debug!(host = self.host, %error, ?delay, "retrying");
        self.config.observer.retrying(self.host, &error, delay);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Returns the media type that a `Content-Type` names, without its parameters, if it is one of a
/// manifest.
pub(crate) fn manifest_type(content_type: Option<&HeaderValue>) -> Option<String> {
    let text = content_type?.to_str().ok()?;
    let name = text.split(';').next().unwrap_or(text).trim();
    let known = media_type::is_index(name) || media_type::is_manifest(name);
    known.then(|| name.to_owned())
}
