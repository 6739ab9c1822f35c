use std::fmt;
use std::sync::Arc;

use crate::source::{File, Span};

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A bake file is wrong: change it.
    Definition,
    /// What was asked for is wrong: change the targets, overrides or variables.
    Request,
    /// The bake file uses what larder does not have.
    Unsupported,
    /// A file could not be read.
    Io,
}

/// Why a bake file could not be read, or a plan not be made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, thiserror::Error)]
struct Inner {
    kind: ErrorKind,
    message: String,
    /// Where, as long as the files are not at hand.
    span: Option<Span>,
    place: Option<Place>,
    source: Option<std::io::Error>,
}

/// A place in a file.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub file: Arc<File>,
    /// The first line, counted from 1.
    pub line: u32,
    /// The last line.
    pub end_line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{},{}: ", place.file.name, place.line, place.column)?;
        }
        f.write_str(&self.message)
    }
}

impl Error {
    /// Returns what a caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns where in a file the error is; `None` if it is in none.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            span: None,
            place: None,
            source: None,
        }))
    }

    pub(crate) fn definition(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Definition, message)
    }

    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Request, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Io, message);
        error.0.source = Some(source);
        error
    }

    /// Says where, unless an inner error already did.
    pub(crate) fn at(mut self, span: Span) -> Self {
        self.0.span.get_or_insert(span);
        self
    }

    /// Puts the key that the error is about before the message.
    pub(crate) fn in_key(mut self, key: &str) -> Self {
        self.0.message = format!("`{key}`: {}", self.0.message);
        self
    }

    /// Turns the offsets into lines of `files`.
    pub(crate) fn locate(mut self, files: &[Arc<File>]) -> Self {
        if let (Some(span), None) = (self.0.span, &self.0.place) {
            self.0.place = files.get(span.file).map(|file| Place::new(file, span));
        }
        self
    }
}

impl Place {
    fn new(file: &Arc<File>, span: Span) -> Self {
        let (line, column) = file.position(span.start);
        let (end_line, _) = file.position(span.end.max(span.start + 1) - 1);
        Self {
            file: Arc::clone(file),
            line,
            end_line,
            column,
        }
    }
}

/// Returns ` (did you mean x?)` if one of `options` is close to `word`, else nothing.
pub(crate) fn suggestion<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    /// From this many edits on, a name is no longer taken for a misspelling.
    const MAX_EDITS: usize = 3;
    /// Longer words are not compared: comparing is quadratic.
    const MAX_WORD_BYTES: usize = 128;
    if word.len() > MAX_WORD_BYTES {
        return String::new();
    }
    options
        .into_iter()
        .filter(|option| option.len() <= MAX_WORD_BYTES)
        .map(|option| (strsim::levenshtein(word, option), option))
        .filter(|(edits, _)| *edits < MAX_EDITS)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, option)| format!(" (did you mean {option}?)"))
        .unwrap_or_default()
}
