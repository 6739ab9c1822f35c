//! `cargo xtask lint`: formatting, clippy, and whether the fuzz targets compile.

use anyhow::Result;
use larder_testkit::target_dir;

use crate::run::{self, cargo, workspace};

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
    ]))?;
    check_fuzz_targets()
}

/// Compiles the fuzz targets, as far as that needs no C++ compiler: any file may stand for libFuzzer, since
/// nothing is linked.
fn check_fuzz_targets() -> Result<()> {
    let manifest = workspace().join("fuzz/Cargo.toml");
    let target = target_dir();
    run::run(
        cargo()
            .args(["check", "--manifest-path"])
            .arg(&manifest)
            .arg("--target-dir")
            .arg(target)
            .env("CUSTOM_LIBFUZZER_PATH", &manifest),
    )
}
