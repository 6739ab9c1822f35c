//! Tar, layers and compressed streams, through the public surface.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say why they are skipped"
)]

mod apply;
mod beneath;
mod compression;
mod golden;
mod hostile;
mod links;
mod roundtrip;
mod support;
mod tar;
