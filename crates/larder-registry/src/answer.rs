//! What servers answer: success, an error with a reason, or nothing.

use larder_oci::media_type;
use reqwest::header::HeaderValue;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::error::Retry;
use crate::request::Request;
use crate::retry::retry_of;
use crate::{Error, ErrorKind};

/// More of an error's text is not read, and not shown.
const MAX_ERROR_BYTES: usize = 64 << 10;
const MAX_MESSAGE_CHARS: usize = 300;

/// Returns `response` if it says success.
pub(crate) async fn checked(
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
    let what = request.subject();
    let error = if retry == Retry::Never {
        refused(request, status, &reason)
    } else {
        let message = format!("`{host}` answered {status} to a request for {what}");
        Error::new(ErrorKind::Unavailable, message).with_retry(retry)
    };
    Err(error.with_status(status.as_u16()))
}

/// Returns the error for an answer that another attempt would only get again.
fn refused(request: &Request<'_>, status: StatusCode, reason: &str) -> Error {
    let host = &request.endpoint.host;
    let what = request.subject();
    let is_push = request.endpoint.is_push();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => access_denied(request, reason),
        StatusCode::NOT_FOUND if is_push && request.writes() => {
            let message = format!("`{host}` has no place for {what}: {reason}");
            Error::new(ErrorKind::NotFound, message)
        }
        StatusCode::NOT_FOUND => Error::new(ErrorKind::NotFound, format!("{what}: not found")),
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("{what} is larger than `{host}` takes: {reason}");
            Error::new(ErrorKind::Rejected, message)
        }
        status if request.writes() => {
            let message = format!("`{host}` refused {what} with {status}: {reason}");
            Error::new(ErrorKind::Rejected, message)
        }
        status => {
            let message = format!("`{host}` refused a request for {what} with {status}: {reason}");
            Error::new(ErrorKind::Unsupported, message)
        }
    }
}

/// The message has BuildKit's words: people look for them.
pub(crate) fn access_denied(request: &Request<'_>, reason: &str) -> Error {
    let what = request.subject();
    let message = if request.image_ref.is_none() {
        format!("{what} refuses the login: {reason}")
    } else {
        let direction = if request.endpoint.is_push() {
            "push"
        } else {
            "pull"
        };
        format!(
            "{what}: {direction} access denied, repository does not exist or may require \
             authorization: server message: {reason}"
        )
    };
    Error::new(ErrorKind::Denied, message)
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
pub(crate) fn is_tls_failure(error: &(dyn std::error::Error + 'static)) -> bool {
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

/// Returns the media type that a `Content-Type` names, without its parameters, if it is one of a
/// manifest.
pub(crate) fn manifest_type(content_type: Option<&HeaderValue>) -> Option<String> {
    let text = content_type?.to_str().ok()?;
    let name = text.split(';').next().unwrap_or(text).trim();
    let known = media_type::is_index(name) || media_type::is_manifest(name);
    known.then(|| name.to_owned())
}
