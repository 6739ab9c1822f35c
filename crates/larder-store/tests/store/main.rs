//! The store through its public interface.

mod blobs;
mod cache_mounts;
mod crash;
mod images;
mod keys;
mod opening;
mod pruning;
mod sharing;
mod snapshots;
mod support;
mod usage;
