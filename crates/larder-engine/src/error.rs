use std::error::Error as StdError;
use std::fmt;

use larder_llb::{SourceFile, SourceRange};
use larder_oci::Digest;

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The input is wrong: a flag, the Dockerfile, the context.
    Invalid,
    /// A step of the build failed.
    Step,
    /// Something named does not exist: an image, a file, a secret.
    NotFound,
    /// A registry wants other credentials.
    Denied,
    /// A registry or another service did not answer.
    Unavailable,
    /// The disk is full, or a limit is reached.
    Exhausted,
    /// The build was canceled.
    Canceled,
    /// Larder itself is wrong: report it.
    Internal,
}

/// Where in a text a failure lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The text.
    pub file: SourceFile,
    /// The lines.
    pub ranges: Vec<SourceRange>,
}

/// A failure of a build or of another request.
#[derive(Debug)]
pub struct BuildError {
    class: ErrorClass,
    message: String,
    hint: Option<Box<str>>,
    vertex: Option<Digest>,
    location: Option<Box<Location>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// The blob that could not be fetched from where it should be.
    lost_blob: Option<Box<Digest>>,
}

/// The result of a request to the engine.
pub type Result<T, E = BuildError> = std::result::Result<T, E>;

impl BuildError {
    /// Returns an error of `class`. A last line `hint: …` of the message, as the parts write it,
    /// becomes the hint.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        let message = message.into();
        let (message, hint) = match message.split_once("\nhint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.into())),
            None => (message, None),
        };
        Self {
            class,
            message,
            hint,
            vertex: None,
            location: None,
            source: None,
            lost_blob: None,
        }
    }

    /// Returns the error as that of `blob`, which could not be fetched from where it should be.
    pub(crate) fn of_fetch(self, blob: &Digest) -> Self {
        Self {
            lost_blob: Some(Box::new(blob.clone())),
            ..self
        }
    }

    /// Returns the blob that could not be fetched from where it should be, if that is the error.
    pub(crate) fn lost_blob(&self) -> Option<&Digest> {
        self.lost_blob.as_deref()
    }

    /// Returns an error that says the input is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Invalid, message)
    }

    /// Returns an error that says a rule of larder itself does not hold.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Internal, message)
    }

    /// Returns the error of a canceled build.
    pub fn canceled() -> Self {
        Self::new(ErrorClass::Canceled, "context canceled")
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into_boxed_str());
        self
    }

    /// Takes away what to do next, where that does not help.
    #[must_use]
    pub(crate) fn without_hint(mut self) -> Self {
        self.hint = None;
        self
    }

    /// Adds the vertex that failed.
    #[must_use]
    pub fn with_vertex(mut self, vertex: Digest) -> Self {
        self.vertex = Some(vertex);
        self
    }

    /// Adds where in a text it lies.
    #[must_use]
    pub fn with_location(mut self, location: Location) -> Self {
        self.location = Some(Box::new(location));
        self
    }

    /// Puts `what` before the message: the operation that failed.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Returns the same error for somebody else, its causes as text.
    pub(crate) fn duplicate(&self) -> Self {
        Self {
            class: self.class,
            message: self.full_message(),
            hint: self.hint.clone(),
            vertex: self.vertex.clone(),
            location: self.location.clone(),
            source: None,
            lost_blob: None,
        }
    }

    /// Adds the texts of the causes of a part's error, whose type is not the callers' business.
    /// The hint is the message's own, else that of a cause, else `hint`.
    fn caused_by(mut self, error: &dyn StdError, hint: Option<String>) -> Self {
        let mut texts = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            let (text, own) = match text.split_once("\nhint: ") {
                Some((text, hint)) => (text.to_owned(), Some(hint.into())),
                None => (text, None),
            };
            texts.push(text);
            self.hint = self.hint.or(own);
            source = cause.source();
        }
        self.hint = self.hint.or(hint.map(String::into_boxed_str));
        self.source = (!texts.is_empty()).then(|| texts.join(": ").into());
        self
    }

    /// Puts the messages of all causes into the message, where only that will be shown.
    #[must_use]
    pub(crate) fn flattened(mut self) -> Self {
        self.message = self.full_message();
        self.source = None;
        self
    }

    /// Returns what a caller can do.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// Returns what to do next, if there is something.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the vertex that failed, if one did.
    pub fn vertex(&self) -> Option<&Digest> {
        self.vertex.as_ref()
    }

    /// Returns where in a text it lies, if known.
    pub fn location(&self) -> Option<&Location> {
        self.location.as_deref()
    }

    /// Returns the message with those of all causes, joined by `: `.
    pub fn full_message(&self) -> String {
        let mut text = self.message.clone();
        let mut source = self.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<larder_store::Error> for BuildError {
    fn from(error: larder_store::Error) -> Self {
        use larder_store::ErrorKind;
        let class = match error.kind() {
            ErrorKind::FullDisk => ErrorClass::Exhausted,
            ErrorKind::Denied => ErrorClass::Denied,
            ErrorKind::NotFound => ErrorClass::NotFound,
            ErrorKind::Invalid | ErrorKind::Corrupt => ErrorClass::Invalid,
            ErrorKind::Busy => ErrorClass::Unavailable,
            ErrorKind::Canceled => return Self::canceled(),
            ErrorKind::Internal => ErrorClass::Internal,
        };
        let full = error.kind() == ErrorKind::FullDisk;
        Self::new(class, error.to_string()).caused_by(&error, full.then(full_disk_hint))
    }
}

impl From<larder_tree::Error> for BuildError {
    fn from(error: larder_tree::Error) -> Self {
        use larder_tree::ErrorKind;
        let full =
            error.io_source().map(std::io::Error::kind) == Some(std::io::ErrorKind::StorageFull);
        let class = match error.kind() {
            _ if full => ErrorClass::Exhausted,
            ErrorKind::NotFound => ErrorClass::NotFound,
            _ => ErrorClass::Invalid,
        };
        Self::new(class, error.to_string()).caused_by(&error, full.then(full_disk_hint))
    }
}

impl From<larder_exec::Error> for BuildError {
    fn from(error: larder_exec::Error) -> Self {
        use larder_exec::ErrorKind;
        let source = std::error::Error::source(&error);
        let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        let full = source.is_some_and(|source| source.kind() == std::io::ErrorKind::StorageFull);
        let class = match error.kind() {
            _ if full => ErrorClass::Exhausted,
            ErrorKind::Command => ErrorClass::Step,
            ErrorKind::Input => ErrorClass::Invalid,
            ErrorKind::Unsupported => ErrorClass::Unavailable,
            ErrorKind::System => ErrorClass::Internal,
        };
        Self::new(class, error.to_string()).caused_by(&error, full.then(full_disk_hint))
    }
}

impl From<larder_registry::Error> for BuildError {
    fn from(error: larder_registry::Error) -> Self {
        use larder_registry::ErrorKind;
        let class = match error.kind() {
            ErrorKind::NotFound => ErrorClass::NotFound,
            ErrorKind::Denied => ErrorClass::Denied,
            ErrorKind::Sink | ErrorKind::Source => ErrorClass::Exhausted,
            ErrorKind::Config | ErrorKind::Unsupported | ErrorKind::Rejected => ErrorClass::Invalid,
            _ => ErrorClass::Unavailable,
        };
        let hint = match class {
            ErrorClass::Unavailable => error.hint().or(Some(IMPORT_HINT)),
            _ => error.hint(),
        };
        Self::new(class, error.to_string()).caused_by(&error, hint.map(str::to_owned))
    }
}

/// For who can't reach a registry.
const IMPORT_HINT: &str =
    "an image in the local store needs no registry: `larder import` reads archives";

fn full_disk_hint() -> String {
    "make room on the disk: `larder prune` removes what no image needs".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_told_apart_and_stays_last() {
        let error = BuildError::new(ErrorClass::Invalid, "it is wrong\nhint: do it right")
            .with_source(std::io::Error::other("no reason"))
            .context("cannot do it");
        assert_eq!(error.full_message(), "cannot do it: it is wrong: no reason");
        assert_eq!(error.hint(), Some("do it right"));
        let plain = BuildError::invalid("it is wrong");
        assert_eq!(
            (plain.to_string().as_str(), plain.hint()),
            ("it is wrong", None)
        );
    }
}
