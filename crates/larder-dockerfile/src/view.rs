//! A Dockerfile as it is written, for who reads it to advise and not to build.

use larder_llb::SourceRange;

use crate::dockerfile::Dockerfile;
use crate::instruction::{CommandLine, InstructionKind};
use crate::lower::default_bases;
use crate::options::LowerOptions;
use crate::parse::{self, MountType, Sharing};

/// A stage: FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageView {
    /// Its name in lower case, if it has one.
    pub name: Option<String>,
    /// What it is built from, as written.
    pub base: String,
    /// What it is built from if the build is given no arguments; empty where that is nothing.
    pub default_base: String,
    /// The stage that it is built from, by its place in the file; `None` for an image.
    pub base_stage: Option<usize>,
    /// The lines of FROM.
    pub lines: SourceRange,
    /// The instructions, in order.
    pub instructions: Vec<InstructionView>,
}

/// An instruction, with its variables not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionView {
    /// Its lines, from the first to the last.
    pub lines: SourceRange,
    /// Its text, joined to one line; documents are left out.
    pub text: String,
    /// What it says.
    pub kind: KindView,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindView {
    /// ARG: names, and defaults where there are some.
    Arg(Vec<(String, Option<String>)>),
    /// ENV: names and values.
    Env(Vec<(String, String)>),
    /// COPY or ADD.
    Copy(CopyView),
    /// RUN.
    Run(RunView),
    /// USER.
    User(String),
    /// Another instruction.
    Other,
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyView {
    /// The stage or image that it copies from; `None` for the build context.
    pub from: Option<String>,
    /// What it copies.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
    /// Patterns of what it leaves out.
    pub excludes: Vec<String>,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunView {
    /// What runs.
    pub command: CommandView,
    /// The mounts that can be read without the values of variables.
    pub mounts: Vec<MountView>,
}

/// What a RUN runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandView {
    /// A text for the shell, documents included.
    Shell(String),
    /// A program with its arguments.
    Exec(Vec<String>),
}

/// `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountView {
    /// Whether it is a cache mount.
    pub is_cache: bool,
    /// Where it is mounted.
    pub target: String,
    /// Of a cache mount: what names it.
    pub id: String,
    /// Of a cache mount: whether one step at a time may use it.
    pub is_locked: bool,
}

impl Dockerfile {
    /// Returns the stages with their instructions, in order.
    pub fn view(&self) -> Vec<StageView> {
        let defaults = default_bases(self, &LowerOptions::default());
        let stages = self.stages.iter().zip(defaults).enumerate();
        let earlier = |index: usize, base: &str| {
            let base = base.to_lowercase();
            let named = |stage: &crate::dockerfile::Stage| stage.from.name.as_ref() == Some(&base);
            self.stages[..index].iter().rposition(named)
        };
        stages
            .map(|(index, (stage, default_base))| StageView {
                name: stage.from.name.clone(),
                base: stage.from.base.clone(),
                base_stage: earlier(index, &default_base),
                default_base,
                lines: SourceRange {
                    start: stage.from.lines.start,
                    end: stage.from.lines.end,
                },
                instructions: stage.instructions.iter().map(view).collect(),
            })
            .collect()
    }
}

fn view(instruction: &crate::instruction::Instruction) -> InstructionView {
    let kind = match &instruction.kind {
        InstructionKind::Arg(pairs) => {
            let pairs = pairs.iter();
            KindView::Arg(pairs.map(|p| (p.name.clone(), p.default.clone())).collect())
        }
        InstructionKind::Env(pairs) => KindView::Env(pairs.pairs.clone()),
        InstructionKind::Copy(copy) => KindView::Copy(CopyView {
            from: copy.from.clone(),
            sources: copy.sources.clone(),
            destination: copy.destination.clone(),
            excludes: copy.exclude.clone(),
        }),
        InstructionKind::Run(run) => KindView::Run(RunView {
            command: command(run),
            mounts: run.mounts.iter().filter_map(|m| mount(&m.text)).collect(),
        }),
        InstructionKind::User(user) => KindView::User(user.clone()),
        _ => KindView::Other,
    };
    InstructionView {
        lines: SourceRange {
            start: instruction.lines.start,
            end: instruction.lines.end,
        },
        text: instruction.code.clone(),
        kind,
    }
}

fn command(run: &crate::instruction::Run) -> CommandView {
    match &run.command {
        CommandLine::Exec(words) => CommandView::Exec(words.clone()),
        CommandLine::Shell(_) if run.is_script => {
            let documents = run.documents.iter();
            CommandView::Shell(documents.map(|(_, content)| content.as_str()).collect())
        }
        CommandLine::Shell(text) => CommandView::Shell(text.clone()),
    }
}

fn mount(text: &str) -> Option<MountView> {
    let mount = parse::parse_mount(text, |value| Ok(value.to_owned())).ok()?;
    Some(MountView {
        is_cache: mount.kind == MountType::Cache,
        target: mount.target,
        id: mount.id,
        is_locked: mount.sharing == Some(Sharing::Locked),
    })
}
