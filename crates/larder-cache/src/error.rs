/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Go without the cache: it is not what BuildKit or larder writes.
    Invalid,
    /// Go without the cache, or make a smaller one: it is larger than larder reads.
    TooLarge,
    /// Choose other options: these exclude each other.
    Options,
}

/// A cache that can't be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The result of an operation on a cache.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Fails if `count` of `what` is more than `limit`.
pub(crate) fn check_limit(what: &str, count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooLarge,
        format!("the cache has {count} {what}, more than {limit}"),
    ))
}
