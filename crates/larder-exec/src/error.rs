use std::io;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<io::Error>,
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command cannot be executed: missing, not executable, of a foreign format. The step has
    /// failed, and the message is what its user should see in its output.
    Command,
    /// The specification is at fault: correct it.
    Input,
    /// This kernel, or this user, can't do it: take another way.
    Unsupported,
    /// The kernel refused: disk, memory, limits, or a defect of ours.
    System,
}

impl Error {
    /// Returns what a caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// Returns an error of the kernel's: [`ErrorKind::Unsupported`] for a missing or forbidden
    /// system call, [`ErrorKind::System`] otherwise.
    pub(crate) fn system(message: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = match source.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::ENODEV | libc::EOPNOTSUPP) => {
                ErrorKind::Unsupported
            }
            _ => ErrorKind::System,
        };
        Self::caused(kind, message, source)
    }
}

/// The result of what this crate does.
pub type Result<T> = std::result::Result<T, Error>;
