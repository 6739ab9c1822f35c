//! Caches beyond the store: results of other machines, and results for them.

pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod index;
pub(crate) mod remote;
pub(crate) mod source;
