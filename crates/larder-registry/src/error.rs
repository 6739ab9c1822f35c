use std::time::Duration;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fix the name: the registry knows no such image or blob.
    NotFound,
    /// Log in, or get permission.
    Denied,
    /// Try later: the registry can't be reached, or is busy, and went on so for all attempts.
    Unavailable,
    /// Distrust the registry: what it sent is not what was asked for.
    Corrupt,
    /// Fix the configuration of the registry, or of the credentials.
    Config,
    /// Fix the place where the bytes should go.
    Sink,
    /// Fix the place where the bytes come from.
    Source,
    /// Push something else, or change the registry's rules: it does not take this.
    Rejected,
    /// Use something else: larder doesn't do this.
    Unsupported,
}

/// A failed operation on a registry.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    retry: Retry,
    /// What the registry answered, if it did.
    status: Option<u16>,
}

/// Whether the same request may do better later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// After a delay that grows.
    Backoff,
    /// As before, but only once more: it rarely helps.
    Seldom,
    /// After the time that the registry asks for.
    After(Duration),
}

impl Error {
    /// Returns an error for a [`CredentialSource`](crate::CredentialSource) that larder does not
    /// bring. It is not tried again.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            retry: Retry::Never,
            status: None,
        }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns what a user can try, for a line of its own after `hint: `.
    pub fn hint(&self) -> Option<&'static str> {
        match self.kind {
            ErrorKind::Denied => Some("log in with `larder login`, or check the image's name"),
            ErrorKind::Corrupt => {
                Some("a proxy or mirror may have changed the bytes; try without it")
            }
            _ => None,
        }
    }

    pub(crate) fn retry(&self) -> Retry {
        self.retry
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.status
    }
}
