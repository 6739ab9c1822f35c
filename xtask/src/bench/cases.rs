mod export;
mod local;
mod remote;
mod scale;

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::Place;
use super::report::Row;
use super::tool::Tool;
use crate::run::workspace;

/// Something to measure.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) size: Size,
    /// Measures one round.
    pub(super) run: fn(&Tool, &Place) -> Result<Vec<Row>>,
}

/// How much a case asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Is always run, each round by each tool.
    Small,
    /// Takes gigabytes, or minutes of the peers: runs when asked for, and the peers have one round.
    Large,
    /// Takes gigabytes from the network: when asked for, one round.
    Huge,
}

/// All cases. The first make few files, see [`super::run`].
pub(super) const CASES: &[Case] = &[
    Case {
        name: "smartdiet",
        size: Size::Small,
        run: |tool, place| local::smartdiet(tool, place, "requirements.txt"),
    },
    Case {
        name: "steps",
        size: Size::Small,
        run: local::steps,
    },
    Case {
        name: "stages",
        size: Size::Small,
        run: local::stages,
    },
    Case {
        name: "copies",
        size: Size::Small,
        run: scale::copies,
    },
    Case {
        name: "pull",
        size: Size::Small,
        run: remote::pull,
    },
    Case {
        name: "pull-layers",
        size: Size::Small,
        run: remote::pull_layers,
    },
    Case {
        name: "remote-cache",
        size: Size::Small,
        run: remote::cache,
    },
    Case {
        name: "push",
        size: Size::Small,
        run: remote::push,
    },
    Case {
        name: "export-smartdiet",
        size: Size::Small,
        run: export::smartdiet,
    },
    Case {
        name: "context",
        size: Size::Small,
        run: local::context,
    },
    Case {
        name: "lookups",
        size: Size::Large,
        run: scale::lookups,
    },
    Case {
        name: "export",
        size: Size::Large,
        run: export::large,
    },
    Case {
        name: "smartdiet-full",
        size: Size::Huge,
        run: |tool, place| local::smartdiet(tool, place, "requirements-full.txt"),
    },
];

/// Copies the example service to the directory `to`, which is made.
fn copy_example(to: &Path, requirements: &str) -> Result<()> {
    let example = workspace().join("examples/smartdiet");
    crate::demo::copy_tree(&example, to)?;
    fs::copy(example.join(requirements), to.join("requirements.txt"))?;
    Ok(())
}

/// Changes one of the example's files.
fn change_example(context: &Path, change: usize) -> Result<()> {
    let original = workspace().join("examples/smartdiet/smartdiet/planner.py");
    let text = fs::read_to_string(original)?;
    let changed = format!("{text}# Change {change}.\n");
    Ok(fs::write(context.join("smartdiet/planner.py"), changed)?)
}
