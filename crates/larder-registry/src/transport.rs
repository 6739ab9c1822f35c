//! Requests to registries: schemes, redirects, authentication, retries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use crate::answer::{access_denied, checked, is_tls_failure, unreachable};
use crate::auth::Authenticator;
use crate::endpoint::{Endpoint, is_loopback};
use crate::request::{Content, Request};
use crate::retry::Retries;
use crate::tls::{Direction, http_client};
use crate::{Config, Error, ErrorKind, RegistryConfig};

/// Blobs that are fetched from one registry at once, or pushed to it, as BuildKit does.
const MAX_CONCURRENCY: usize = 4;
/// As many redirects as browsers follow at least.
pub(crate) const MAX_REDIRECTS: usize = 10;

/// Sends requests, and remembers what it learns about each registry.
pub(crate) struct Transport {
    pub(crate) config: Config,
    authenticator: Authenticator,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What is known about a registry.
pub(crate) struct Host {
    section: RegistryConfig,
    user_agent: String,
    is_loopback: bool,
    client: Client,
    /// Made with the first upload.
    upload_client: OnceLock<Client>,
    /// To be tried in this order.
    schemes: &'static [&'static str],
    /// The scheme that worked.
    working: OnceLock<&'static str>,
    downloads: Semaphore,
    uploads: Semaphore,
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
        let section = self.config.registries.get(&endpoint.config_name);
        let section = section.cloned().unwrap_or_default();
        let host = Host::new(section, self.config.user_agent.clone(), &endpoint.host)?;
        let host = Arc::new(host);
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
    fn new(section: RegistryConfig, user_agent: String, host: &str) -> Result<Self, Error> {
        let is_loopback = is_loopback(host);
        let permits = section.max_concurrency.unwrap_or(MAX_CONCURRENCY).max(1);
        Ok(Self {
            client: http_client(&section, &user_agent, is_loopback, Direction::Down)?,
            upload_client: OnceLock::new(),
            schemes: schemes(&section, is_loopback),
            working: OnceLock::new(),
            downloads: Semaphore::new(permits),
            uploads: Semaphore::new(permits),
            section,
            user_agent,
            is_loopback,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Bounds how many blobs are fetched from the registry at once.
    pub(crate) fn downloads(&self) -> &Semaphore {
        &self.downloads
    }

    /// Bounds how many blobs are pushed to the registry at once.
    pub(crate) fn uploads(&self) -> &Semaphore {
        &self.uploads
    }

    /// Returns the HTTP client that fits what is sent.
    fn client_for(&self, content: &Content<'_>) -> Result<&Client, Error> {
        if !matches!(content, Content::Piece(_)) {
            return Ok(&self.client);
        }
        if let Some(client) = self.upload_client.get() {
            return Ok(client);
        }
        let made = http_client(
            &self.section,
            &self.user_agent,
            self.is_loopback,
            Direction::Up,
        )?;
        Ok(self.upload_client.get_or_init(|| made))
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
        let mut earlier = None;
        for scheme in others {
            match self.follow(request, scheme, authorization).await {
                Err(Unanswered::Transport(server, error)) if error.is_connect() => {
                    earlier = Some((server, error));
                }
                answer => return self.settle(scheme, answer),
            }
        }
        let answer = self.follow(request, last, authorization).await;
        match (answer, earlier) {
            // So servers answer that speak TLS, but not with us: why not is what to tell.
            (Ok((response, _)), Some((server, error)))
                if response.status() == StatusCode::BAD_REQUEST && is_tls_failure(&error) =>
            {
                Err(unreachable(&server, error))
            }
            (answer, _) => self.settle(last, answer),
        }
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
            Err(Unanswered::Other(error)) => Err(error),
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
        let registry = Url::parse(&format!("{scheme}://{}", request.endpoint.host));
        let registry = registry.map(|url| url.origin()).ok();
        let mut url = request.url(scheme)?;
        for _ in 0..=MAX_REDIRECTS {
            let is_elsewhere = Some(url.origin()) != registry;
            let client = self.client_for(&request.content)?;
            let message = client.request(request.method.clone(), url.clone());
            let mut message = request.fill(message)?;
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
            url = location(&response, &request.endpoint.host)?;
        }
        let message = format!("`{}` redirects without end", request.endpoint.host);
        Err(Error::new(ErrorKind::Corrupt, message).into())
    }
}

/// Why no answer came.
enum Unanswered {
    /// From this server.
    Transport(String, reqwest::Error),
    Other(Error),
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Returns where an answer of the registry `host` leads.
///
/// # Errors
/// `Corrupt` when it leads nowhere, or from https to something less safe.
pub(crate) fn location(response: &Response, host: &str) -> Result<Url, Error> {
    let bad = |what: &str| Error::new(ErrorKind::Corrupt, format!("`{host}` {what}"));
    let from = response.url();
    let mut to = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| bad("redirects to nowhere"))?;
    // A registry behind a proxy that ends TLS may not know that it is spoken to safely.
    let is_same_host = to.host_str() == from.host_str() && to.port() == from.port();
    if is_same_host && from.scheme() == "https" && to.scheme() == "http" {
        let _ = to.set_scheme("https");
    }
    let is_http = matches!(to.scheme(), "http" | "https");
    if !is_http || (from.scheme() == "https" && to.scheme() == "http") {
        return Err(bad("redirects from https to something less safe"));
    }
    Ok(to)
}

pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns the schemes to try at a registry.
fn schemes(section: &RegistryConfig, is_loopback: bool) -> &'static [&'static str] {
    match (section.http, section.insecure) {
        (Some(true), _) => &["http"],
        (_, Some(true)) => &["https", "http"],
        (None, _) if is_loopback => &["https", "http"],
        _ => &["https"],
    }
}
