use std::error::Error as StdError;
use std::fmt;
use std::io;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The disk, or a quota on it, is full. Prune, or give the state directory more room.
    FullDisk,
    /// The operating system refuses access to the state directory. Change its owner or pick another.
    Denied,
    /// Stored or incoming bytes are not what they are said to be. Fetch them again.
    Corrupt,
    /// What was named does not exist, or was pruned.
    NotFound,
    /// The request can't be fulfilled as it stands. Change it.
    Invalid,
    /// Another process holds what is needed. Try again.
    Busy,
    /// The caller gave up waiting.
    Canceled,
    /// The store is broken, or the operating system failed in an unexpected way. Report it.
    Internal,
}

/// An error of the store: what was attempted, and why it failed.
///
/// Its text names blobs, snapshots and images, never paths below the state directory.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of the store's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns an error without a cause beneath it.
    pub(crate) fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            source: None,
        }
    }

    pub(crate) fn not_found(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, format_args!("{what} does not exist"))
    }

    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn corrupt(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Returns the error of a failed system call; `action` is as in "cannot write blob `x`".
    pub(crate) fn io(action: impl fmt::Display, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self {
            kind: kind_of(&source),
            message: action.to_string(),
            source: Some(source.into()),
        }
    }

    /// Returns the error of a tree operation; `action` is as in [`Error::io`].
    pub(crate) fn tree(action: impl fmt::Display, source: larder_tree::Error) -> Self {
        use larder_tree::ErrorKind as Tree;
        let kind = match source.kind() {
            Tree::NotFound => ErrorKind::NotFound,
            Tree::InvalidInput | Tree::Escape => ErrorKind::Corrupt,
            Tree::LimitExceeded | Tree::Unsupported => ErrorKind::Invalid,
            Tree::Changed => ErrorKind::Busy,
            _ => source.io_source().map_or(ErrorKind::Internal, kind_of),
        };
        Self {
            kind,
            message: action.to_string(),
            source: Some(source.into()),
        }
    }

    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::FullDisk,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        /// The index shared by processes can't grow: SQLite's sign of a full disk under it.
        const SQLITE_IOERR_SHMSIZE: i32 = 4874;

        let kind = match error.sqlite_error() {
            Some(sqlite) if sqlite.extended_code == SQLITE_IOERR_SHMSIZE => ErrorKind::FullDisk,
            Some(sqlite) => match sqlite.code {
                Code::DiskFull => ErrorKind::FullDisk,
                Code::ReadOnly | Code::CannotOpen | Code::PermissionDenied => ErrorKind::Denied,
                Code::DatabaseBusy | Code::DatabaseLocked => ErrorKind::Busy,
                Code::DatabaseCorrupt | Code::NotADatabase => ErrorKind::Corrupt,
                _ => ErrorKind::Internal,
            },
            None => ErrorKind::Internal,
        };
        Self {
            kind,
            message: "cannot use the state database".to_owned(),
            source: Some(error.into()),
        }
    }
}
