//! Git repositories as sources: what users write, and what LLB says of it.
//!
//! - [`GitRef`] is a repository as a Dockerfile or a flag names it, with all forms and options of
//!   BuildKit.
//! - [`GitSource`] is what a source op says: it is written for a [`GitRef`], and read by who solves it.
//! - [`Remote`] is the address that both have.
//!
//! ```
//! use larder_llb::git::{GitRef, GitSource};
//!
//! let named = GitRef::parse("https://example.com/a.git#v1:docs").expect("a repository")?;
//! let source = GitSource::new(&named, false);
//! assert_eq!(source.to_op().identifier, "git://example.com/a.git#v1:docs");
//! assert!(GitRef::parse("https://example.com/a.tar").is_none());
//! # Ok::<(), larder_llb::git::GitError>(())
//! ```

mod reference;
mod remote;
mod source;

pub use reference::{GitRef, Mtime};
pub use remote::{Remote, Scheme};
pub use source::{GitSignature, GitSource, is_commit};

/// Why a text names no repository, or a source op none that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GitError(String);

impl GitError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}
