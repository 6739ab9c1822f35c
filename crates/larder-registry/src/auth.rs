//! Answers to a registry's `401 Unauthorized`: Basic, and the tokens of the distribution
//! specification's token and OAuth2 flows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::answer::{read_limited, server_message, unreachable};
use crate::challenge::{self, Challenge};
use crate::endpoint::{Endpoint, is_loopback};
use crate::error::Retry;
use crate::retry::retry_of;
use crate::transport::Host;
use crate::{CredentialSource, Credentials, Error, ErrorKind, Observer, Secret};

/// How larder names itself to token servers.
const CLIENT_ID: &str = "larder";
/// A longer answer of a token server is none.
const MAX_TOKEN_BYTES: usize = 1 << 20;

/// Gets and keeps what registries want to see.
pub(crate) struct Authenticator {
    credentials: Arc<dyn CredentialSource>,
    observer: Arc<dyn Observer>,
    /// What worked last, by host and scope. It is sent until the registry refuses it, so its
    /// expiry need not be known.
    granted: Mutex<HashMap<(String, String), HeaderValue>>,
}

/// A token server's answer.
#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
}

impl Authenticator {
    pub(crate) fn new(credentials: Arc<dyn CredentialSource>, observer: Arc<dyn Observer>) -> Self {
        Self {
            credentials,
            observer,
            granted: Mutex::default(),
        }
    }

    /// Returns the `Authorization` that was granted for `endpoint` before.
    pub(crate) fn granted(&self, endpoint: &Endpoint) -> Option<HeaderValue> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.get(&key(endpoint)).cloned()
    }

    /// Returns an `Authorization` that answers `response`, which refused a request to `endpoint`.
    ///
    /// # Errors
    /// `Denied`, if the registry wants what larder can't give or the user does not have;
    /// `Unavailable`, if the token server can't be reached; `Config`, from the credentials.
    pub(crate) async fn answer(
        &self,
        host: &Host,
        endpoint: &Endpoint,
        response: &reqwest::Response,
    ) -> Result<HeaderValue, Error> {
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let find = |scheme: &str| challenges.iter().find(|own| own.scheme == scheme);
        let credentials = self.credentials.credentials(&endpoint.host).await?;
        let header = if let Some(challenge) = find("bearer") {
            let over_http = response.url().scheme() == "http";
            let token = self
                .token(host, endpoint, challenge, credentials, over_http)
                .await?;
            sensitive(format!("Bearer {}", token.expose()), &endpoint.host)?
        } else if find("basic").is_some() {
            match credentials {
                Some(Credentials::Password { username, password }) => {
                    basic(&username, &password, &endpoint.host)?
                }
                Some(Credentials::IdentityToken(_)) => {
                    return Err(denied(
                        &endpoint.host,
                        "wants a password, and the login is a token",
                    ));
                }
                None => return Err(denied(&endpoint.host, "wants a login")),
            }
        } else {
            return Err(denied(&endpoint.host, "does not say how to authenticate"));
        };
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.insert(key(endpoint), header.clone());
        Ok(header)
    }

    /// Asks the token server that `challenge` names.
    async fn token(
        &self,
        host: &Host,
        endpoint: &Endpoint,
        challenge: &Challenge,
        credentials: Option<Credentials>,
        over_http: bool,
    ) -> Result<Secret, Error> {
        let realm = challenge
            .parameter("realm")
            .and_then(|realm| Url::parse(realm).ok())
            .filter(|realm| matches!(realm.scheme(), "http" | "https"))
            .ok_or_else(|| denied(&endpoint.host, "names no token server"))?;
        if credentials.is_some() && !may_carry_login(&realm, over_http) {
            let what = "wants the login sent over plain http to its token server";
            return Err(denied(&endpoint.host, what));
        }
        let asked = challenge.parameter("scope").unwrap_or_default();
        let scope = &join_scopes(&endpoint.scope(), asked);
        let service = challenge.parameter("service");
        self.observer.token_requested(&endpoint.host, scope);
        let request = match &credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token.expose()),
                    ("client_id", CLIENT_ID),
                    ("service", service.unwrap_or_default()),
                    ("scope", scope.as_str()),
                ];
                host.client()
                    .request(Method::POST, realm.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form_encode(&realm, &form))
            }
            Some(Credentials::Password { username, password }) => host
                .client()
                .request(
                    Method::GET,
                    token_url(&realm, service, scope, Some(username)),
                )
                .header(AUTHORIZATION, basic(username, password, &endpoint.host)?),
            None => host
                .client()
                .request(Method::GET, token_url(&realm, service, scope, None)),
        };
        let server = realm.host_str().unwrap_or_default();
        let response = request
            .send()
            .await
            .map_err(|error| unreachable(server, error))?;
        read_token(response, server, &endpoint.host).await
    }
}

fn key(endpoint: &Endpoint) -> (String, String) {
    (endpoint.host.clone(), endpoint.scope())
}

/// Joins scopes into one text: each resource once, with all that is to be done with it.
///
/// The registry asks for what one request needs; a token for all that will follow saves the others.
fn join_scopes(own: &str, asked: &str) -> String {
    let mut joined: Vec<(&str, Vec<&str>)> = Vec::new();
    for scope in own.split_whitespace().chain(asked.split_whitespace()) {
        let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        let position = joined.iter().position(|(known, _)| *known == resource);
        let position = position.unwrap_or_else(|| {
            joined.push((resource, Vec::new()));
            joined.len() - 1
        });
        let known = &mut joined[position].1;
        for action in actions.split(',') {
            if !known.contains(&action) {
                known.push(action);
            }
        }
    }
    let texts: Vec<String> = joined
        .iter()
        .map(|(resource, actions)| format!("{resource}:{}", actions.join(",")))
        .collect();
    texts.join(" ")
}

/// Returns whether a login may be sent to `realm`: over plain http only on this machine, or where
/// the registry itself is spoken to like that.
fn may_carry_login(realm: &Url, over_http: bool) -> bool {
    over_http || realm.scheme() == "https" || realm.host_str().is_some_and(is_loopback)
}

/// Reads a token server's answer to a request for a token of `registry`.
async fn read_token(
    response: reqwest::Response,
    server: &str,
    registry: &str,
) -> Result<Secret, Error> {
    let status = response.status();
    if status != StatusCode::OK {
        let retry = retry_of(&response);
        let reason = server_message(response).await;
        return Err(match retry {
            Retry::Never => denied(registry, &format!("gives no token: {server}: {reason}")),
            retry => {
                let message = format!("token server `{server}` answered {status}");
                Error::new(ErrorKind::Unavailable, message).with_retry(retry)
            }
        });
    }
    let body = read_limited(response, MAX_TOKEN_BYTES, server).await?;
    let token = serde_json::from_slice::<TokenResponse>(&body)
        .ok()
        .and_then(|answer| answer.token.or(answer.access_token))
        .filter(|token| !token.is_empty());
    match token {
        Some(token) => Ok(token.into()),
        None => Err(denied(
            registry,
            &format!("gives no token: {server} answered without one"),
        )),
    }
}

fn token_url(realm: &Url, service: Option<&str>, scope: &str, account: Option<&str>) -> Url {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scope.split_whitespace() {
            query.append_pair("scope", scope);
        }
        if let Some(account) = account {
            query.append_pair("account", account);
        }
    }
    url
}

/// Encodes a form as a URL's query is encoded.
fn form_encode(realm: &Url, form: &[(&str, &str)]) -> String {
    let mut url = realm.clone();
    url.query_pairs_mut().clear().extend_pairs(form);
    url.query().unwrap_or_default().to_owned()
}

fn basic(username: &str, password: &Secret, host: &str) -> Result<HeaderValue, Error> {
    let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(format!("Basic {pair}"), host)
}

fn sensitive(text: String, host: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::try_from(text)
        .map_err(|_| denied(host, "gave a token that no header can carry"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn denied(host: &str, what: &str) -> Error {
    Error::new(ErrorKind::Denied, format!("`{host}` {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_go_over_https_unless_the_registry_does_not() {
        let check = |realm: &str, over_http: bool, expected: bool| {
            let realm = Url::parse(realm).unwrap();
            assert_eq!(may_carry_login(&realm, over_http), expected, "{realm}");
        };
        check("https://auth.example/token", false, true);
        check("http://auth.example/token", false, false);
        check("http://auth.example/token", true, true);
        check("http://127.0.0.1:5001/token", false, true);
        check("http://[::1]/token", false, true);
    }

    #[test]
    fn scopes_are_joined() {
        let check = |own: &str, asked: &str, expected: &str| {
            assert_eq!(join_scopes(own, asked), expected);
        };
        check("", "", "");
        check("repository:a:pull", "", "repository:a:pull");
        check(
            "repository:a:pull",
            "repository:a:pull",
            "repository:a:pull",
        );
        check(
            "repository:a:pull,push repository:b:pull",
            "repository:a:pull repository:c:*",
            "repository:a:pull,push repository:b:pull repository:c:*",
        );
    }

    #[test]
    fn queries_and_forms_are_encoded() {
        let realm = Url::parse("https://a/token?x=1").unwrap();
        let url = token_url(
            &realm,
            Some("a b"),
            "repository:x:pull repository:y:pull",
            None,
        );
        let expected = "x=1&service=a+b&scope=repository%3Ax%3Apull&scope=repository%3Ay%3Apull";
        assert_eq!(url.query(), Some(expected));
        assert_eq!(form_encode(&realm, &[("a", "b&c")]), "a=b%26c");
    }
}
