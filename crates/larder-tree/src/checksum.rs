//! Content digests of trees.
