//! Dockerfile frontend: parser and lowering to LLB.
