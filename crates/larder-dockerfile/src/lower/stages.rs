//! The stages of a Dockerfile and what each needs.

mod cycles;
mod global;

use std::collections::BTreeMap;

use larder_oci::{ImageConfig, ImageRef, Platform};

use super::asked::{Args, Asked};
use super::dag::NodeRef;
use super::env::Env;
use super::{image, local};
use crate::dockerfile::{Dockerfile, Stage};
use crate::error::{Error, Lines};
use crate::expand::Expander;
use crate::golang;
use crate::instruction::{Instruction, InstructionKind};
use crate::lint::{self, Lint, LintOptions};
use crate::options::{LowerOptions, NamedContext};
use crate::parse::{self, Parsed};
use crate::statement;
use crate::suggest::with_suggestion;

pub(super) use global::global_args;

/// An instruction of a stage, with the stages that it reads.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) instruction: Instruction,
    /// For COPY the one of `--from`; for RUN one a mount, `None` where a mount has no `from`.
    pub(super) sources: Vec<Option<usize>>,
    /// Whether a base image or stage ordered it.
    pub(super) on_build: bool,
}

impl Command {
    /// Returns the stage or image that `--from`, or the `index`-th mount, names.
    pub(super) fn source(&self, index: usize) -> Option<usize> {
        self.sources.get(index).copied().flatten()
    }
}

/// A stage, or an image that an instruction reads directly.
#[derive(Debug, Default)]
pub(super) struct State {
    /// `stage-N` where the Dockerfile gives none; empty for an image.
    pub(super) name: String,
    /// The name as steps show it: not at all where it is the only state.
    pub(super) shown: String,
    /// What it is built from, variables expanded.
    pub(super) base_name: String,
    pub(super) code: String,
    pub(super) lines: Lines,
    pub(super) platform: Option<Platform>,
    /// The stage that it is built from.
    pub(super) base: Option<usize>,
    /// The named context that stands in for it.
    pub(super) context: Option<(String, NamedContext)>,
    dependencies: Vec<(usize, Lines)>,
    pub(super) commands: Vec<Command>,
    pub(super) step_count: usize,
    pub(super) step_index: usize,
    pub(super) no_cache: bool,
    /// Whether it is a stage of the Dockerfile.
    pub(super) is_stage: bool,
    pub(super) resolved: bool,
    pub(super) dispatched: bool,
    pub(super) triggers_taken: bool,
    pub(super) in_trigger: bool,
    /// Which paths of it others use; shared with the stages built from it.
    pub(super) paths: local::PathsId,

    pub(super) output: Option<NodeRef>,
    pub(super) env: Env,
    pub(super) dir: String,
    pub(super) user: String,
    /// The platform of its image; `None` for scratch.
    pub(super) image_platform: Option<Platform>,
    pub(super) image: ImageConfig,
    pub(super) base_image: Option<(ImageRef, ImageConfig)>,
    /// The ARGs so far, with their values.
    pub(super) args: Vec<(String, Option<String>)>,
    /// Where CMD, ENTRYPOINT and HEALTHCHECK stood last in this stage.
    pub(super) last_given: BTreeMap<&'static str, Lines>,
    /// Whether there was a WORKDIR, in this stage or one below.
    pub(super) has_workdir: bool,
    /// What the comment above FROM says of checks.
    pub(super) lint: LintOptions,
    /// What it asks for.
    pub(super) asked: Asked,
}

impl State {
    /// Returns the stages and images that its instructions read, in their order.
    pub(super) fn read_stages(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.dependencies.iter().map(|(stage, _)| *stage)
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) states: Vec<State>,
    by_name: BTreeMap<String, usize>,
    stage_count: usize,
    all_stages: bool,
    pub(super) target: usize,
    /// What FROM may refer to, and ARG without a default takes.
    pub(super) global: Env,
    /// The ARGs before the first FROM.
    pub(super) global_args: Args,
    next_paths: local::PathsId,
}

impl Stages {
    pub(super) fn new(
        dockerfile: &Dockerfile,
        options: &LowerOptions,
        lint: &Lint,
    ) -> Result<Self, Error> {
        lint::check_file(dockerfile, lint);
        // Arguments that can't be expanded are an error in a moment.
        if let Ok(defaults) = global::default_args(dockerfile, options) {
            lint.default_bases(dockerfile, &defaults);
        }
        let (global, global_args) = global::global_args(dockerfile, options)?;
        let mut stages = Self {
            states: Vec::new(),
            by_name: BTreeMap::new(),
            stage_count: dockerfile.stages.len(),
            all_stages: options.all_stages,
            target: 0,
            global,
            global_args,
            next_paths: local::PathsId::default(),
        };
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let added = stages.add_stage(dockerfile, options, lint, index, stage);
            added.map_err(|error| error.at(stage.from.lines))?;
        }
        stages.target = stages.find_target(options.target.as_deref())?;
        let mut only_state = true;
        for (id, stage) in dockerfile.stages.iter().enumerate() {
            if stages.states[id].context.is_some() {
                continue;
            }
            for instruction in &stage.instructions {
                let command = stages.command(instruction, false)?;
                only_state &= command.sources.is_empty();
                stages.depend(id, &command);
                stages.states[id].commands.push(command);
            }
        }
        stages.check_cycles()?;
        if only_state && stages.states.len() == 1 {
            stages.states[0].shown.clear();
        }
        Ok(stages)
    }

    fn add_stage(
        &mut self,
        dockerfile: &Dockerfile,
        options: &LowerOptions,
        lint: &Lint,
        index: usize,
        stage: &Stage,
    ) -> Result<(), Error> {
        let from = &stage.from;
        lint.enter(from.lines, &from.lint);
        let known: Vec<&str> = global::declared(dockerfile)
            .chain(self.global.names())
            .collect();
        let expander = Expander::new(dockerfile.escape);
        let expand = |word: &str| {
            expander
                .expand(word, &self.global)
                .map_err(Error::dockerfile)
        };
        let expansion = expand(&from.base)?;
        lint.base_variables(&expansion, &known);
        let base_name = expansion.text;
        let mut asked = Asked::default();
        asked.uses(&expansion.matched);
        if base_name.is_empty() {
            let message = format!("base name ({}) should not be blank", from.base);
            return Err(Error::dockerfile(message));
        }
        let mut platform = None;
        if let Some(word) = &from.platform {
            let expansion = expand(word)?;
            lint.base_variables(&expansion, &known);
            let stage = from.name.as_deref().unwrap_or_default();
            lint.platform(stage, word, &expansion, &self.global);
            asked.uses(&expansion.matched);
            platform = Some(self.parse_platform(word, &expansion.text, &expansion.unmatched)?);
        }
        let base = self.by_name.get(&base_name.to_lowercase()).copied();
        let context = match &from.name {
            Some(name) => image::named_context(options, name, platform.as_ref())?,
            None => None,
        };
        let paths = match base {
            Some(base) if context.is_none() => self.states[base].paths,
            _ => self.new_paths(),
        };
        let steps = stage.instructions.iter().filter(|i| i.kind.is_step());
        let from_image = usize::from(base.is_none() && base_name != "scratch");
        let name = from.name.clone().unwrap_or(format!("stage-{index}"));
        self.states.push(State {
            shown: name.clone(),
            name,
            base_name,
            code: from.code.clone(),
            lines: from.lines,
            platform,
            base: base.filter(|_| context.is_none()),
            step_count: from_image + steps.count(),
            no_cache: options
                .no_cache
                .covers(from.name.as_deref().unwrap_or_default()),
            is_stage: true,
            lint: from.lint.clone(),
            asked: if context.is_none() {
                asked
            } else {
                Asked::default()
            },
            context,
            paths,
            ..State::default()
        });
        if let Some(name) = &from.name {
            self.by_name.insert(name.clone(), self.states.len() - 1);
        }
        Ok(())
    }

    fn parse_platform(
        &self,
        word: &str,
        text: &str,
        unmatched: &std::collections::BTreeSet<String>,
    ) -> Result<Platform, Error> {
        let suggest = |message: String| {
            let suggested = unmatched
                .iter()
                .map(|name| with_suggestion(message.clone(), name, self.global.names()))
                .find(|suggested| *suggested != message);
            Error::dockerfile(suggested.unwrap_or(message))
        };
        if text.is_empty() {
            return Err(suggest(format!(
                "empty platform value from expression {word}"
            )));
        }
        text.parse().map_err(|error: larder_oci::PlatformError| {
            suggest(format!("failed to parse platform {word}: {error}")).caused_by(error)
        })
    }

    fn new_paths(&mut self) -> local::PathsId {
        let paths = self.next_paths;
        self.next_paths = paths.next();
        paths
    }

    fn find_target(&self, target: Option<&str>) -> Result<usize, Error> {
        let Some(target) = target.filter(|target| !target.is_empty()) else {
            return Ok(self.states.len() - 1);
        };
        let found = self.by_name.get(&target.to_lowercase()).copied();
        found.ok_or_else(|| {
            let message = format!("target stage {} could not be found", golang::quote(target));
            Error::options(with_suggestion(message, target, self.names()))
        })
    }

    /// Returns the names of the stages as steps show them.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let shown = self.states.iter().map(|state| state.shown.as_str());
        shown.filter(|name| !name.is_empty())
    }

    /// Finds the stages that an instruction reads, and adds the images that it reads.
    fn command(&mut self, instruction: &Instruction, on_build: bool) -> Result<Command, Error> {
        let lines = instruction.lines;
        let mut sources = Vec::new();
        match &instruction.kind {
            InstructionKind::Copy(copy) => {
                if let Some(from) = &copy.from {
                    if from.contains('$') {
                        return Err(Error::dockerfile(
                            "variable expansion is not supported for --from, define a new stage \
                             with FROM using ARG from global scope as a workaround",
                        )
                        .at(lines));
                    }
                    sources.push(Some(self.source(from, lines)?));
                }
            }
            InstructionKind::Run(run) => {
                for mount in &run.mounts {
                    let from = mount.from.as_ref();
                    sources.push(from.map(|from| self.source(from, lines)).transpose()?);
                }
            }
            _ => {}
        }
        Ok(Command {
            instruction: instruction.clone(),
            sources,
            on_build,
        })
    }

    /// Finds a stage by name or index; another name is an image.
    fn source(&mut self, from: &str, lines: Lines) -> Result<usize, Error> {
        if let Some(&id) = self.by_name.get(&from.to_lowercase()) {
            return Ok(id);
        }
        if let Ok(index) = from.parse::<i64>() {
            let known = usize::try_from(index)
                .ok()
                .filter(|&i| i < self.stage_count);
            return known.ok_or_else(|| {
                Error::dockerfile(format!("invalid stage index {index}")).at(lines)
            });
        }
        let paths = self.new_paths();
        self.states.push(State {
            base_name: from.to_owned(),
            lines,
            paths,
            ..State::default()
        });
        Ok(self.states.len() - 1)
    }

    fn depend(&mut self, id: usize, command: &Command) {
        let lines = command.instruction.lines;
        let sources = command
            .sources
            .iter()
            .flatten()
            .map(|&source| (source, lines));
        self.states[id].dependencies.extend(sources);
    }

    /// Returns, for each state, whether the target needs it.
    pub(super) fn reachable(&self) -> Vec<bool> {
        if self.all_stages {
            return vec![true; self.states.len()];
        }
        let mut reachable = vec![false; self.states.len()];
        let mut open = vec![self.target];
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut reachable[id], true) {
                continue;
            }
            let state = &self.states[id];
            open.extend(state.base);
            open.extend(state.read_stages());
        }
        reachable
    }

    /// Adds what the base image or stage ordered with ONBUILD before the stage's own
    /// instructions. Returns whether that reads further stages or images.
    pub(super) fn add_triggers(&mut self, id: usize, triggers: &[String]) -> Result<bool, Error> {
        let mut commands = Vec::with_capacity(triggers.len());
        let mut new_sources = false;
        let lines = self.states[id].lines;
        for trigger in triggers {
            let instruction = parse_trigger(trigger, lines).map_err(|error| error.at(lines))?;
            let command = self.command(&instruction, true)?;
            new_sources |= !command.sources.is_empty();
            self.depend(id, &command);
            commands.push(command);
        }
        let state = &mut self.states[id];
        state.step_count += commands.len();
        commands.append(&mut state.commands);
        state.commands = commands;
        if new_sources {
            self.check_cycles()?;
        }
        Ok(new_sources)
    }

    /// Takes over what a stage has from the stage it is built from.
    pub(super) fn inherit(&mut self, id: usize) {
        let Some(base) = self.states[id].base else {
            return;
        };
        // A stage is built from an earlier one only.
        let (earlier, rest) = self.states.split_at_mut(id);
        let (base, state) = (&earlier[base], &mut rest[0]);
        state.output = base.output;
        state.env.clone_from(&base.env);
        state.dir.clone_from(&base.dir);
        state.user.clone_from(&base.user);
        state.platform.clone_from(&base.platform);
        state.image_platform.clone_from(&base.image_platform);
        state.base_image.clone_from(&base.base_image);
        state.args.clone_from(&base.args);
        state.has_workdir = base.has_workdir;
        state.image.clone_from(&base.image);
        state.image.config.on_build.clear();
    }
}

/// Returns what each FROM names if the build is given no arguments; nothing where that can't be told.
pub(crate) fn default_bases(dockerfile: &Dockerfile, options: &LowerOptions) -> Vec<String> {
    let defaults = global::default_args(dockerfile, options).unwrap_or_default();
    let expander = Expander::new(dockerfile.escape);
    let stages = dockerfile.stages.iter();
    stages
        .map(|stage| expander.expand(&stage.from.base, &defaults))
        .map(|expansion| expansion.unwrap_or_default().text)
        .collect()
}

fn parse_trigger(trigger: &str, lines: Lines) -> Result<Instruction, Error> {
    // Lines of the trigger are not lines of this file.
    let foreign = |error: Error| Error::dockerfile(format!("ONBUILD {trigger}: {error}"));
    let (statements, _) = statement::read(trigger.as_bytes()).map_err(foreign)?;
    let [only] = &statements[..] else {
        return Err(Error::dockerfile(
            "onbuild trigger should be a single expression",
        ));
    };
    let moved = statement::Statement {
        lines,
        ..only.clone()
    };
    match parse::parse(&moved, '\\').map_err(foreign)? {
        Parsed::Instruction(instruction) => Ok(instruction),
        Parsed::From(_) => Err(Error::dockerfile(
            "FROM isn't allowed as an ONBUILD trigger",
        )),
    }
}
