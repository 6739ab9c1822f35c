//! The tar format: a streaming reader and a deterministic writer.
