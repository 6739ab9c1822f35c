//! Source policies: what builds may fetch, and what they fetch in its place.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use larder_engine::request::SourcePolicy;

use super::Context;

/// Names the file of a policy, for all builds.
const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";
/// How large a policy may be.
const MAX_BYTES: u64 = 16 << 20;

impl Context<'_> {
    /// Returns the policy that the environment asks for; one without rules by default. Its file is
    /// read once, since it may be a pipe.
    ///
    /// # Errors
    /// When it can't be read: who has rules must not believe that they hold.
    pub(crate) fn source_policy(&self) -> anyhow::Result<SourcePolicy> {
        if let Some(known) = self.source_policy.get() {
            return Ok(known.clone());
        }
        let policy = match self.env.non_empty(VARIABLE) {
            Some(file) => read(Path::new(file)).with_context(|| format!("`{VARIABLE}`"))?,
            None => SourcePolicy::default(),
        };
        Ok(self.source_policy.get_or_init(|| policy).clone())
    }
}

/// Reads a policy.
///
/// # Errors
/// Names the file; for what is no policy, with line and key.
pub(crate) fn read(file: &Path) -> anyhow::Result<SourcePolicy> {
    let mut bytes = Vec::new();
    fs_err::File::open(file)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    let name = file.display().to_string();
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{name}: the source policy has more than {MAX_BYTES} bytes");
    }
    Ok(SourcePolicy::from_json(&bytes, &name)?)
}
