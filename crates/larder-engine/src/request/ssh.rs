//! SSH agents that a build may use.

use std::io;
use std::sync::Arc;

use larder_llb::git::{GitRef, Scheme};

/// Gives SSH agents. Implemented by whoever asks for the build.
pub trait SshProvider: Send + Sync {
    /// Returns the agent `id`; `None` if there is none.
    ///
    /// # Errors
    /// When the agent is there and can't be reached.
    fn agent(&self, id: &str) -> io::Result<Option<Arc<dyn SshAgent>>>;
}

/// Knows keys, and signs with them.
pub trait SshAgent: Send + Sync {
    /// Answers a message of the agent protocol; both without their lengths. The engine asks which
    /// keys there are, and for signatures, and nothing else.
    ///
    /// # Errors
    /// When there is no answer.
    fn answer(&self, request: &[u8]) -> io::Result<Vec<u8>>;
}

/// Returns whether a context is a git repository behind SSH: its build needs an agent.
pub fn is_behind_ssh(context: &str) -> bool {
    matches!(GitRef::parse(context), Some(Ok(named)) if named.remote.scheme() == Scheme::Ssh)
}

/// Returns whether a context is a git repository, which has directories that can be named.
pub fn is_repository(context: &str) -> bool {
    GitRef::parse(context).is_some()
}

/// Knows no agent.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSsh;

impl SshProvider for NoSsh {
    fn agent(&self, _id: &str) -> io::Result<Option<Arc<dyn SshAgent>>> {
        Ok(None)
    }
}
