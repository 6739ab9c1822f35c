use std::fmt;
use std::sync::Arc;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A compose file or an env file is wrong: change it.
    File,
    /// No compose file, or one that was named, is there: name another.
    NotFound,
    /// What was asked for is wrong: a flag, a variable, a service's name.
    Options,
    /// The file uses what larder does not have.
    Unsupported,
}

/// A place in a file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct At {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from 1; 0 where none is known.
    pub line: u32,
}

impl At {
    /// Returns a place in `file`.
    pub fn new(file: &Arc<str>, line: u32) -> Self {
        Self {
            file: Arc::clone(file),
            line,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a project can't be loaded. `Display` begins with file, line and key where they are known:
/// `compose.yaml:4: services.api: …`.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    at: Option<At>,
    key: String,
    source: Option<std::io::Error>,
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            at: None,
            key: String::new(),
            source: None,
        }
    }

    /// Returns the error of a file that is wrong.
    pub(crate) fn file(at: &At, key: impl fmt::Display, message: impl Into<String>) -> Self {
        Self {
            at: Some(at.clone()),
            key: key.to_string(),
            ..Self::new(ErrorKind::File, message)
        }
    }

    pub(crate) fn options(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Options, message)
    }

    pub(crate) fn caused_by(mut self, source: std::io::Error) -> Self {
        self.source = Some(source);
        self
    }

    /// Adds where the thing was named that it is about, unless it tells a place of its own.
    pub(crate) fn named_at(self, at: &At, key: impl fmt::Display) -> Self {
        if self.at.is_some() {
            return self;
        }
        Self {
            at: Some(at.clone()),
            key: key.to_string(),
            ..self
        }
    }

    /// Returns what a caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns where the error is, if it is in a file.
    pub fn at(&self) -> Option<&At> {
        self.at.as_ref()
    }

    /// Returns the key it is about, `services.api.build`; empty if it is about none.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Something the user should know that does not stop the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where it is, if in a file.
    pub at: Option<At>,
    /// What, in one line.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(at) => write!(f, "{at}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
