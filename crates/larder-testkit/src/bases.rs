//! Base images, made from Debian's packages.

mod layout;
mod recipe;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fs_err as fs;

/// The version of the recipes: raised when one changes, so that older archives are not taken for
/// what the recipe makes now.
const RECIPE_VERSION: u32 = 2;

/// A base image that tests, demo and benchmarks build on.
///
/// The same packages give the same bytes. No image holds anything of the machine that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// `busybox:latest`: Debian's static busybox and its applets.
    Busybox,
    /// `debian:bookworm-slim`: Debian's essential packages and apt.
    Debian,
    /// `python:3.11-slim`: the same with Python and pip, below `/usr/local`.
    Python,
}

impl Base {
    /// All base images, the quickest to make first.
    pub const ALL: [Self; 3] = [Self::Busybox, Self::Debian, Self::Python];

    /// Returns the image's name and tag, as a Dockerfile says it.
    pub fn image_name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox:latest",
            Self::Debian => "debian:bookworm-slim",
            Self::Python => "python:3.11-slim",
        }
    }

    /// Returns the path of the image as an OCI archive below [`target_dir`]; makes it where it is
    /// absent, which takes some seconds for busybox and about a minute for the others.
    ///
    /// Processes that ask at the same time wait for the one that makes it.
    pub fn archive(self) -> Result<PathBuf> {
        let dir = target_dir()
            .join("bases")
            .join(format!("v{RECIPE_VERSION}"));
        let path = dir.join(format!("{}.oci.tar", self.image_name().replace(':', "-")));
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&dir)?;
        let lock = fs::File::create(path.with_extension("lock"))?;
        lock.file()
            .lock()
            .with_context(|| format!("cannot lock the making of {}", self.image_name()))?;
        if !path.exists() {
            let work = tempfile::tempdir()?;
            let part = path.with_extension("part");
            recipe::make(self, work.path(), &part)
                .with_context(|| format!("cannot make the base image {}", self.image_name()))?;
            fs::rename(&part, &path)?;
        }
        Ok(path)
    }
}

/// Returns cargo's target directory: `CARGO_TARGET_DIR`, or `target/` in the workspace.
pub fn target_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let workspace = workspace.expect("the crate lies in `crates/` of the workspace");
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
