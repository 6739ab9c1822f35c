use larder_oci::Digest;

/// What went wrong inside the solver. Failures of steps are the driver's own type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A vertex or target names an edge that no vertex before it has.
    #[error("vertex `{vertex}` is read, but not defined before its reader")]
    UnknownVertex {
        /// The vertex that is missing.
        vertex: Digest,
    },
    /// The driver's answer does not fit the request.
    #[error("{what} of vertex `{vertex}` does not fit what was asked")]
    Answer {
        /// The vertex.
        vertex: Digest,
        /// What was answered.
        what: &'static str,
    },
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Fix the graph.
    InvalidGraph,
    /// Report a bug of the driver.
    Internal,
}

impl Error {
    /// Returns what can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownVertex { .. } => ErrorKind::InvalidGraph,
            Self::Answer { .. } => ErrorKind::Internal,
        }
    }
}
