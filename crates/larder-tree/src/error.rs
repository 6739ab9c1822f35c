use std::fmt;
use std::io;

use rustix::io::Errno;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file, directory, user or pattern match that was asked for does not exist.
    NotFound,
    /// Foreign data is malformed or hostile: a tar, a compressed stream, a pattern. Fix the input.
    InvalidInput,
    /// A path, link or entry would leave the tree it belongs to.
    Escape,
    /// A limit of the format reader was exceeded.
    LimitExceeded,
    /// A file changed while it was read. Try again.
    Changed,
    /// The input needs something that isn't built.
    Unsupported,
    /// The operating system refused: permissions, disk full, a broken device.
    Io,
}

/// An error of this crate: what was attempted, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<io::Error>,
}

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns an error without an underlying cause. `message` is a lowercase fragment.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            source: None,
        }
    }

    /// Returns an error for a failed system call or stream; `action` says what was attempted,
    /// as in "cannot open `etc/passwd`".
    ///
    /// An `io::Error` that carries an [`Error`] of this crate (from a decoder, say) keeps its kind.
    pub fn io(action: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = match source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Self>())
        {
            Some(inner) => inner.kind,
            None => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                    ErrorKind::InvalidInput
                }
                io::ErrorKind::Unsupported => ErrorKind::Unsupported,
                _ => ErrorKind::Io,
            },
        };
        Self {
            kind,
            message: action.to_string(),
            source: Some(source),
        }
    }

    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the error of the operating system or stream beneath, where there is one.
    pub fn io_source(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }

    /// Returns the same error with `context` put before its message: "`context`: message".
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::InvalidInput | ErrorKind::Escape | ErrorKind::LimitExceeded => {
                io::ErrorKind::InvalidData
            }
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Changed | ErrorKind::Io => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Returns the error of a change of the owner of `path`.
pub(crate) fn owner_failed(path: impl fmt::Display, errno: Errno) -> Error {
    let hint = match errno {
        Errno::INVAL => "\nhint: map more ids to this user in /etc/subuid and /etc/subgid",
        _ => "",
    };
    Error::io(format!("cannot set the owner of `{path}`{hint}"), errno)
}
