//! `cargo xtask lint`: formatting and clippy.

use anyhow::Result;

use crate::run::{self, cargo};

pub(crate) fn run() -> Result<()> {
    run::run(cargo().args(["fmt", "--all", "--check"]))?;
    run::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))
}
