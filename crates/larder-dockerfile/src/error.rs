use larder_llb::{GraphError, SourceRange};

use crate::lint::Warning;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The Dockerfile is wrong: change it.
    Dockerfile,
    /// What was asked for is wrong: change the build's options.
    Options,
    /// A base image could not be had: check its name, the network or the credentials.
    Image,
    /// The Dockerfile uses what larder does not have yet.
    Unsupported,
    /// The frontend is wrong: report a bug.
    Internal,
}

/// Why a Dockerfile could not be parsed or lowered.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    ranges: Vec<SourceRange>,
    warnings: Vec<Warning>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Returns what a caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the lines of the Dockerfile that the error is about, one range a line, for an
    /// excerpt. Empty when it is about no line.
    pub fn ranges(&self) -> &[SourceRange] {
        &self.ranges
    }

    /// Returns what the build checks had found before, in order.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            ranges: Vec::new(),
            warnings: Vec::new(),
            source: None,
        }
    }

    pub(crate) fn dockerfile(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Dockerfile, message)
    }

    pub(crate) fn options(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Options, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Names the lines, unless an inner error already did.
    pub(crate) fn at(mut self, lines: Lines) -> Self {
        if self.ranges.is_empty() {
            self.ranges = lines.ranges();
        }
        self
    }

    /// Names the lines of several instructions, in their order.
    pub(crate) fn at_each(mut self, mut all: Vec<Lines>) -> Self {
        all.sort_by_key(|lines| lines.start);
        all.dedup();
        self.ranges = all.into_iter().flat_map(Lines::ranges).collect();
        self
    }

    pub(crate) fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn after(mut self, warnings: Vec<Warning>) -> Self {
        self.warnings = warnings;
        self
    }

    pub(crate) fn map_message(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.message = change(&self.message);
        self
    }
}

impl From<GraphError> for Error {
    fn from(error: GraphError) -> Self {
        Self::new(ErrorKind::Internal, "cannot build the LLB graph").caused_by(error)
    }
}

/// Lines of the Dockerfile, 1-based, both ends included; line 0 is nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lines {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Lines {
    /// Returns one range a line, as BuildKit records locations.
    pub(crate) fn ranges(self) -> Vec<SourceRange> {
        if self.start == 0 {
            return Vec::new();
        }
        (self.start..=self.end.max(self.start))
            .map(|line| SourceRange {
                start: line,
                end: line,
            })
            .collect()
    }
}
