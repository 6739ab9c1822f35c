//! `cargo xtask bases`: the base images.

use std::path::Path;

use anyhow::{Context as _, Result};
use fs_err as fs;
use larder_testkit::Base;

/// Makes the base images that are absent, and copies all of them to `dir` if one is given.
pub(crate) fn run(dir: Option<&Path>) -> Result<()> {
    for base in Base::ALL {
        let mut archive = base.archive()?;
        if let Some(dir) = dir {
            fs::create_dir_all(dir)?;
            let name = archive.file_name().context("an archive has a name")?;
            let copy = dir.join(name);
            fs::copy(&archive, &copy)?;
            archive = copy;
        }
        println!(
            "{:22} {}",
            base.image_name(),
            fs::canonicalize(archive)?.display()
        );
    }
    Ok(())
}
