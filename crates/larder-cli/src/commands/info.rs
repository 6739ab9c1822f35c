//! `larder info`

use super::Context;
use crate::output;

/// Prints how steps run here, and where the state is.
pub(super) fn run(context: &Context<'_>) -> anyhow::Result<()> {
    let engine = context.engine()?;
    let mut lines = vec![
        ("State directory", engine.root().display().to_string()),
        ("Snapshotter", engine.snapshotter().to_owned()),
        ("Layers", engine.layers()),
        ("Network", engine.network()?.to_string()),
    ];
    let mut devices = engine.devices();
    if devices.is_empty() {
        devices.push("none".to_owned());
    }
    lines.extend(devices.into_iter().map(|device| ("Device", device)));
    let lines = lines
        .into_iter()
        .map(|(name, value)| format!("{:<17}{value}\n", format!("{name}:")));
    Ok(output::print(&lines.collect::<Vec<_>>().concat())?)
}
