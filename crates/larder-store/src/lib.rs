//! The state directory: blobs, snapshots, cache records, leases, prune.
