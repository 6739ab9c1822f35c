//! The store through its public interface.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and tell what was skipped"
)]

mod blobs;
mod cache_mounts;
mod ceiling;
mod commits;
mod crash;
mod devices;
mod images;
mod keys;
mod mounter;
mod opening;
mod origins;
mod packings;
mod pruning;
mod sharing;
mod snapshots;
mod support;
mod usage;
