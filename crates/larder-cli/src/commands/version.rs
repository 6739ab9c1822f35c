//! `larder version`

use crate::exit::{self, Code};
use crate::output;

/// Prints name and version, as `larder --version` does.
pub(crate) fn run() -> anyhow::Result<Code> {
    output::print(concat!("larder ", env!("CARGO_PKG_VERSION"), "\n"))?;
    Ok(exit::SUCCESS)
}
