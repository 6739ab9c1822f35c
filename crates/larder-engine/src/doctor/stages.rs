//! The patient's stages, and questions that several families ask of them.

use larder_dockerfile::{
    CommandView, CopyView, InstructionView, KindView, MountView, RunView, StageView,
};

use super::Patient;
use super::finding::{Cost, Finding, FindingKind};
use super::past;
use super::shell::{self, Command};

/// The patient, with its steps at hand.
pub(super) struct Stages<'a> {
    pub(super) patient: &'a Patient,
}

/// A RUN in its stage.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) stage: usize,
    /// Its place among the instructions of the stage.
    pub(super) index: usize,
    pub(super) instruction: &'a InstructionView,
    pub(super) run: &'a RunView,
}

impl<'a> Step<'a> {
    pub(super) fn line(&self) -> u32 {
        self.instruction.lines.start
    }

    pub(super) fn commands(&self) -> Vec<Command> {
        match &self.run.command {
            CommandView::Shell(script) => shell::commands(script),
            CommandView::Exec(words) => shell::exec(words),
        }
    }

    pub(super) fn cache_mounts(&self) -> impl Iterator<Item = &'a MountView> + use<'a> {
        self.run.mounts.iter().filter(|mount| mount.is_cache)
    }

    /// Returns what is behind the keyword, white space joined.
    pub(super) fn rest(&self) -> String {
        let words = self.instruction.text.split_whitespace().skip(1);
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Returns the instruction with further mounts, as it could be written.
pub(super) fn with_mounts(mounts: &[String], rest: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let keyword = if index == 0 { "RUN" } else { "   " };
        lines.push(format!("{keyword} --mount={mount} \\"));
    }
    lines.push(format!("    {rest}"));
    lines
}

impl<'a> Stages<'a> {
    pub(super) fn new(patient: &'a Patient) -> Self {
        Self { patient }
    }

    pub(super) fn all(&self) -> &'a [StageView] {
        &self.patient.stages
    }

    /// Returns all RUN steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step<'a>> + use<'a> {
        let stages = self.patient.stages.iter().enumerate();
        stages.flat_map(|(stage, view)| {
            let instructions = view.instructions.iter().enumerate();
            instructions.filter_map(move |(index, instruction)| match &instruction.kind {
                KindView::Run(run) => Some(Step {
                    stage,
                    index,
                    instruction,
                    run,
                }),
                _ => None,
            })
        })
    }

    /// Returns what stands above an instruction, the nearest first: in its stage, and in the stages
    /// that this is built from.
    pub(super) fn above(
        &self,
        stage: usize,
        index: usize,
    ) -> impl Iterator<Item = &'a InstructionView> + use<'a> {
        let stages = &self.patient.stages;
        let own = stages[stage].instructions[..index].iter().rev();
        let below =
            std::iter::successors(stages[stage].base_stage, |&base| stages[base].base_stage);
        own.chain(below.flat_map(|base| stages[base].instructions.iter().rev()))
    }

    /// Returns the value of a variable that an ENV or ARG above a step sets.
    pub(super) fn variable(
        &self,
        step: &Step<'_>,
        name: &str,
    ) -> Option<(&'a str, &'a InstructionView)> {
        self.above(step.stage, step.index).find_map(|instruction| {
            let value = match &instruction.kind {
                KindView::Env(pairs) => pairs
                    .iter()
                    .rev()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.as_str()),
                KindView::Arg(pairs) => pairs
                    .iter()
                    .rev()
                    .find(|(known, _)| known == name)
                    .and_then(|(_, value)| value.as_deref()),
                _ => None,
            };
            Some((value?.trim_matches(['"', '\'']), instruction))
        })
    }

    /// Returns who a step runs as; `None` for root.
    pub(super) fn user(&self, step: &Step<'_>) -> Option<&'a str> {
        let user = self
            .above(step.stage, step.index)
            .find_map(|instruction| match &instruction.kind {
                KindView::User(user) => Some(user.split(':').next().unwrap_or_default()),
                _ => None,
            })?;
        (!matches!(user, "root" | "0" | "")).then_some(user)
    }

    /// Returns the copies from the context, each with its stage.
    pub(super) fn copies(
        &self,
    ) -> impl Iterator<Item = (usize, usize, &'a InstructionView, &'a CopyView)> + use<'a> {
        let stages = self.patient.stages.iter().enumerate();
        stages.flat_map(|(stage, view)| {
            let instructions = view.instructions.iter().enumerate();
            instructions.filter_map(move |(index, instruction)| match &instruction.kind {
                KindView::Copy(copy) if copy.from.is_none() => {
                    Some((stage, index, instruction, copy))
                }
                _ => None,
            })
        })
    }

    /// Returns a finding about the Dockerfile.
    pub(super) fn finding(&self, kind: FindingKind, line: u32, problem: String) -> Finding {
        Finding {
            kind,
            file: self.patient.file.clone(),
            line,
            problem,
            cost: None,
            advice: String::new(),
            fix: Vec::new(),
        }
    }

    pub(super) fn cost_of_runs(&self, step: &Step<'_>) -> Option<Cost> {
        past::cost_of_runs(&self.patient.history, &step.instruction.text)
    }
}

/// Returns a source of a COPY as a path relative to the context; empty for all of it.
pub(super) fn cleaned(source: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns whether a COPY takes the whole context.
pub(super) fn takes_all(copy: &CopyView) -> bool {
    copy.sources.iter().any(|source| cleaned(source).is_empty())
}
