//! Copying between trees.
