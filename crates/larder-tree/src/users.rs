//! Users and groups of a tree.
