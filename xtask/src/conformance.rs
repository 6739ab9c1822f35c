//! `cargo xtask conformance`: the conformance suite, or a part of it.

use anyhow::Result;

use crate::run::{cargo, run as run_command};

/// Runs the cases whose names hold `filter`, in all forms.
pub(crate) fn run(filter: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.env("LARDER_CONFORMANCE_ALL", "1");
    command.args([
        "test",
        "--quiet",
        "--workspace",
        "--test",
        "conformance",
        "--",
    ]);
    run_command(command.args(filter))
}
