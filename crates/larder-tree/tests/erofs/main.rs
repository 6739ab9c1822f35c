//! Images: what the kernel, and Debian's own tools, see in them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say why they are skipped"
)]

mod again;
mod content;
mod shapes;
mod support;
