//! From a parsed Dockerfile to LLB.

mod asked;
mod config;
mod copy;
mod dag;
mod env;
mod epoch;
mod image;
mod local;
mod names;
mod ports;
mod remote;
mod run;
mod scan;
mod stages;

use std::cell::Cell;
use std::collections::BTreeMap;

use larder_llb::{Definition, SourceFile};
use larder_oci::{Digest, HistoryEntry, ImageConfig, ImageRef, Platform};

use crate::directive;
use crate::dockerfile::{Dockerfile, unavailable_frontend};
use crate::error::{Error, Lines};
use crate::expand::{Expander, Expansion, Variables};
use crate::instruction::{Instruction, InstructionKind};
use crate::lint::{self, Lint, LintOptions, Warning};
use crate::options::{ImageRequest, ImageResolver, LowerOptions, ResolvedImage};
use crate::subrequest::Outline;

use dag::Dag;
pub use env::EnvOrigin;
use env::split_pair;
pub use epoch::EpochSource;
use local::Locals;
pub use remote::{HttpContext, git_context};
pub(crate) use stages::default_bases;
use stages::{Command, Stages};

/// How many bytes all expansions, environments and inherited histories of one Dockerfile may take
/// together. A short Dockerfile can ask for any number: every RUN carries every variable, every
/// stage the history of the one below.
const MAX_TEXT_BYTES: usize = 64 << 20;
/// What a history entry takes beside its text.
const HISTORY_ENTRY_BYTES: usize = size_of::<HistoryEntry>() + HISTORY_COMMENT.len();
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// What a Dockerfile becomes.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The graph. Empty for `FROM scratch` with no step.
    pub definition: Definition,
    /// The image's config, with the whole history; without layers and, unless
    /// `SOURCE_DATE_EPOCH` is given, without the times of the new entries.
    pub config: ImageConfig,
    /// The image that the target is built from in the end, pinned, with its config; `None` for
    /// `scratch` and directories.
    pub base: Option<(ImageRef, ImageConfig)>,
    /// The instruction that each vertex is made from. What no instruction asks for, such as the
    /// build context, has none.
    pub steps: BTreeMap<Digest, StepInfo>,
    /// The value of `SOURCE_DATE_EPOCH`, in seconds.
    pub source_date_epoch: Option<i64>,
    /// What the build checks found, in order.
    pub warnings: Vec<Warning>,
    /// What a list of the result's contents is to cover beside the result: names and graphs.
    pub scanned: Vec<(String, Definition)>,
}

impl Lowered {
    /// Returns a graph that comes from elsewhere as if a Dockerfile had become it: one with no
    /// instructions, whose image has `config`.
    pub fn new(definition: Definition, config: ImageConfig) -> Self {
        Self {
            definition,
            config,
            base: None,
            steps: BTreeMap::new(),
            source_date_epoch: None,
            warnings: Vec::new(),
            scanned: Vec::new(),
        }
    }
}

/// The instruction that a vertex is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// The named context it comes with, as a step of another Dockerfile; `None` for this one's.
    pub context: Option<String>,
    /// The stage's name, `stage-N` if it has none; empty for the image of a COPY --from.
    pub stage: String,
    /// Which step of its stage it is, from 1; 0 for the image of a COPY --from.
    pub ordinal: usize,
    /// The lines of the instruction: the first and the last.
    pub lines: (u32, u32),
    /// The instruction as written, joined to one line.
    pub instruction: String,
    /// What set each variable of a RUN, by name.
    pub env: BTreeMap<String, EnvOrigin>,
    /// The image as the Dockerfile names it, for the vertex of a FROM or a COPY --from; as the
    /// resolver names it, if that has put another one in its place.
    pub base_image: Option<String>,
}

impl Dockerfile {
    /// Returns the images that the build needs, each once, so that they can be looked up all at
    /// once before [`Dockerfile::lower`] asks for them one by one. ONBUILD triggers of these
    /// images may name further ones.
    ///
    /// # Errors
    /// As [`Dockerfile::lower`].
    pub fn base_images(&self, options: &LowerOptions) -> Result<Vec<ImageRequest>, Error> {
        self.check_frontend(options)?;
        let stages = Stages::new(self, options, &Lint::default())?;
        let mut requests: Vec<ImageRequest> = Vec::new();
        for (id, reachable) in stages.reachable().into_iter().enumerate() {
            if !reachable {
                continue;
            }
            let request = image::request(options, &stages.states[id])?;
            requests.extend(request.filter(|request| !requests.contains(request)));
        }
        Ok(requests)
    }

    /// Lowers the target stage, and what it needs, to LLB.
    ///
    /// # Errors
    /// By kind: [`ErrorKind`](crate::ErrorKind). Errors of the Dockerfile carry its lines. Where the
    /// Dockerfile or the build asks for it, what the build checks find is one.
    pub fn lower(
        &self,
        options: &LowerOptions,
        resolver: &dyn ImageResolver,
    ) -> Result<Lowered, Error> {
        let finish = |lowering: Lowering<'_>| lowering.finish();
        let (lowered, warnings) = self.lower_checked(options, resolver, finish)?;
        Ok(Lowered {
            warnings,
            ..lowered
        })
    }

    /// Returns what building the target takes: what it could be given.
    ///
    /// # Errors
    /// As [`Dockerfile::lower`].
    pub fn outline(
        &self,
        options: &LowerOptions,
        resolver: &dyn ImageResolver,
    ) -> Result<Outline, Error> {
        let outline = |lowering: Lowering<'_>| Ok(lowering.outline());
        Ok(self.lower_checked(options, resolver, outline)?.0)
    }

    /// Lowers the instructions of the target and of what it needs. Returns what `finish` makes of
    /// them, and what the build checks found.
    fn lower_checked<T>(
        &self,
        options: &LowerOptions,
        resolver: &dyn ImageResolver,
        finish: impl FnOnce(Lowering<'_>) -> Result<T, Error>,
    ) -> Result<(T, Vec<Warning>), Error> {
        self.check_frontend(options)?;
        let lint = Lint::new(self.lint_options(options)?);
        let lowered = self
            .lowering(options, resolver, &lint)
            .and_then(Lowering::dispatch_stages)
            .and_then(finish);
        match (lowered, lint.violation()) {
            (Ok(lowered), None) => Ok((lowered, lint.take())),
            (Ok(_), Some(violation)) => Err(Error::dockerfile(violation).after(lint.take())),
            (Err(error), _) => Err(error.after(lint.take())),
        }
    }

    fn lowering<'a>(
        &'a self,
        options: &'a LowerOptions,
        resolver: &'a dyn ImageResolver,
        lint: &'a Lint,
    ) -> Result<Lowering<'a>, Error> {
        let stages = Stages::new(self, options, lint)?;
        if options.target_platform().os == "windows" {
            return Err(Error::unsupported("Windows images are not available"));
        }
        Ok(Lowering {
            dockerfile: self,
            options,
            resolver,
            lint,
            epoch: epoch::seconds(options, &stages.global)?,
            stages,
            dag: Dag::default(),
            locals: Locals::default(),
            resolved: BTreeMap::new(),
            text_bytes: Cell::new(0),
        })
    }

    /// Returns which build checks are wanted: by the build, else by the Dockerfile.
    fn lint_options(&self, options: &LowerOptions) -> Result<LintOptions, Error> {
        const ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";
        if let Some(value) = options.build_args.get(ARG) {
            return LintOptions::parse(value).map_err(|message| {
                Error::options(format!("failed to parse build-arg:{ARG}: {message}"))
            });
        }
        LintOptions::parse(lint::first_word(self.check.as_deref().unwrap_or_default())).map_err(
            |message| Error::dockerfile(format!("failed to parse check options: {message}")),
        )
    }

    /// Returns the frontend's image that is asked for: by the build, else by the Dockerfile. `None` also if
    /// it is the frontend that needs no image.
    pub fn frontend<'a>(&'a self, options: &'a LowerOptions) -> Option<&'a str> {
        let given = options.build_args.get("BUILDKIT_SYNTAX");
        let asked = given.map(String::as_str).or(self.syntax.as_deref());
        asked.filter(|frontend| *frontend != directive::BUILTIN)
    }

    fn check_frontend(&self, options: &LowerOptions) -> Result<(), Error> {
        match self.frontend(options) {
            Some(syntax) if !directive::is_builtin(syntax) => Err(unavailable_frontend(syntax)),
            _ => Ok(()),
        }
    }
}

/// The work in progress.
struct Lowering<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a LowerOptions,
    resolver: &'a dyn ImageResolver,
    lint: &'a Lint,
    stages: Stages,
    dag: Dag,
    locals: Locals,
    resolved: BTreeMap<(ImageRef, Platform), ResolvedImage>,
    epoch: Option<i64>,
    text_bytes: Cell<usize>,
}

impl Lowering<'_> {
    /// Lowers the instructions of all stages that are needed.
    fn dispatch_stages(mut self) -> Result<Self, Error> {
        let reachable = self.resolve_stages()?;
        for (id, reachable) in reachable.into_iter().enumerate() {
            if reachable && !self.stages.states[id].dispatched {
                self.dispatch_stage(id)?;
            }
        }
        Ok(self)
    }

    /// Makes the graph.
    fn finish(mut self) -> Result<Lowered, Error> {
        let target = self.stages.target;
        let paths = self.stages.states[target].paths;
        self.locals.use_path(paths, "/");
        let scanned = self.scanned();
        self.locals.finish(self.options, &mut self.dag);
        let config = self.image_config(target);
        let state = &self.stages.states[target];
        let source = SourceFile {
            filename: self.dockerfile.filename.clone(),
            data: self.dockerfile.text.clone(),
            language: "Dockerfile".to_owned(),
        };
        let base = state.base_image.clone();
        let graph = |(name, node)| {
            let (definition, _) = self.dag.clone().finish(Some(node), None)?;
            Ok((name, definition))
        };
        let scanned = scanned
            .into_iter()
            .map(graph)
            .collect::<Result<_, Error>>()?;
        let (definition, steps) = self.dag.finish(state.output, Some(source))?;
        Ok(Lowered {
            definition,
            config,
            base,
            steps,
            source_date_epoch: self.epoch,
            warnings: Vec::new(),
            scanned,
        })
    }

    fn image_config(&self, target: usize) -> ImageConfig {
        let mut config = self.stages.states[target].image.clone();
        config.rootfs = larder_oci::RootFs::default();
        config.config.labels.extend(self.options.labels.clone());
        if let Some(platform) = &self.options.platform {
            let same = config.os == platform.os && config.architecture == platform.architecture;
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
            if !platform.variant.is_empty() || !same {
                config.variant.clone_from(&platform.variant);
            }
            if !platform.os_version.is_empty() || !same {
                config.os_version.clone_from(&platform.os_version);
            }
            if !platform.os_features.is_empty() {
                config.os_features.clone_from(&platform.os_features);
            }
        }
        config
    }

    /// Lowers the instructions of one stage.
    fn dispatch_stage(&mut self, id: usize) -> Result<(), Error> {
        self.stages.inherit(id);
        let state = &self.stages.states[id];
        let history = state.image.history.iter();
        let history_bytes = history.map(|entry| entry.created_by.len() + HISTORY_ENTRY_BYTES);
        self.count_text(history_bytes.sum::<usize>() + state.env.bytes())
            .map_err(|error| error.at(self.stages.states[id].lines))?;
        let target = self.options.target_platform().clone();
        let state = &mut self.stages.states[id];
        state.dispatched = true;
        state.platform.get_or_insert(target);
        let variables = &mut state.image.config.env;
        if !variables.iter().any(|text| split_pair(text).0 == "PATH") {
            variables.push(format!("PATH={DEFAULT_PATH}"));
        }
        for text in &state.image.config.env {
            let (name, value) = split_pair(text);
            state.env.inherit(name, value);
        }
        if !state.image.config.working_dir.is_empty() {
            let dir = crate::path::absolute("/", &state.image.config.working_dir);
            if !state.image.config.working_dir.starts_with('/') {
                state.image.config.working_dir = dir;
            }
            state.dir.clone_from(&state.image.config.working_dir);
        }
        if !state.image.config.user.is_empty() {
            state.user.clone_from(&state.image.config.user);
        }
        let commands = std::mem::take(&mut state.commands);
        for command in &commands {
            let lines = command.instruction.lines;
            self.dispatch(id, command)
                .map_err(|error| error.at(lines))?;
        }
        self.stages.states[id].commands = commands;
        Ok(())
    }

    fn dispatch(&mut self, id: usize, command: &Command) -> Result<(), Error> {
        let instruction = &command.instruction;
        self.stages.states[id].in_trigger = command.on_build;
        self.lint.enter(instruction.lines, &instruction.lint);
        match &instruction.kind {
            InstructionKind::Copy(copy) => self.copy(id, command, copy),
            InstructionKind::Run(run) => self.run(id, command, run),
            InstructionKind::Workdir(path) => self.workdir(id, instruction, path),
            _ => self.configure(id, instruction),
        }
    }

    /// Expands a word with the variables of a stage.
    fn expand(&self, id: usize, word: &str) -> Result<String, Error> {
        self.expand_checked(Expander::new(self.dockerfile.escape), id, word)
    }

    /// Expands a word with the variables of a stage, and checks that they are set.
    fn expand_checked(&self, expander: Expander, id: usize, word: &str) -> Result<String, Error> {
        let env = &self.stages.states[id].env;
        let expansion = expander.expand(word, env).map_err(Error::dockerfile)?;
        self.check_variables(id, &expansion);
        self.count_text(expansion.text.len())?;
        Ok(expansion.text)
    }

    fn check_variables(&self, id: usize, expansion: &Expansion) {
        let state = &self.stages.states[id];
        let is_declared = |name: &str| {
            config::SCAN_ARGS.contains(&name) || state.args.iter().any(|(arg, _)| arg == name)
        };
        if !expansion.unmatched.is_empty() {
            let known: Vec<&str> = state.env.names().collect();
            self.lint.variables(expansion, is_declared, &known);
        }
    }

    fn expand_with(
        &self,
        expander: Expander,
        word: &str,
        variables: &impl Variables,
    ) -> Result<String, Error> {
        let expansion = expander.expand(word, variables);
        let text = expansion.map_err(Error::dockerfile)?.text;
        self.count_text(text.len())?;
        Ok(text)
    }

    fn count_text(&self, bytes: usize) -> Result<(), Error> {
        let total = self.text_bytes.get() + bytes;
        self.text_bytes.set(total);
        if total > MAX_TEXT_BYTES {
            return Err(Error::dockerfile(format!(
                "variables and histories of all steps take more than {MAX_TEXT_BYTES} bytes"
            )));
        }
        Ok(())
    }

    fn expand_all(&self, id: usize, words: &[String]) -> Result<Vec<String>, Error> {
        words.iter().map(|word| self.expand(id, word)).collect()
    }

    /// Adds a history entry; `has_layer` says whether the instruction makes a layer.
    fn commit(&mut self, id: usize, created_by: String, has_layer: bool) {
        let created = self
            .epoch
            .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
            .map(|time| time.to_string());
        let history = &mut self.stages.states[id].image.history;
        history.push(HistoryEntry {
            created,
            created_by,
            author: String::new(),
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !has_layer,
        });
    }

    /// Describes the step that `instruction` makes, as the next one of its stage.
    fn step_info(&self, id: usize, instruction: &Instruction) -> StepInfo {
        let state = &self.stages.states[id];
        StepInfo {
            context: None,
            stage: state.name.clone(),
            ordinal: state.step_index,
            lines: range(instruction.lines),
            instruction: instruction.code.clone(),
            env: BTreeMap::new(),
            base_image: None,
        }
    }

    /// The time that made directories are given, in nanoseconds; -1 for when they are made.
    fn timestamp(&self) -> i64 {
        self.epoch
            .and_then(|seconds| seconds.checked_mul(1_000_000_000))
            .unwrap_or(-1)
    }
}

fn range(lines: Lines) -> (u32, u32) {
    (lines.start, lines.end)
}
