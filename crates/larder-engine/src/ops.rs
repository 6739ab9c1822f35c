//! The meaning of LLB ops: what each does when it runs.

pub(crate) mod blob;
pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod git;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod local;
pub(crate) mod nested;
pub(crate) mod ssh;
pub(crate) mod stack;
