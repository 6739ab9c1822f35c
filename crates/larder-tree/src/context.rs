//! Walks of build contexts.
