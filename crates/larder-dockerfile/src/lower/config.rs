//! Instructions that change the image config and later steps, and make no layer; and WORKDIR.

use std::collections::BTreeMap;

use larder_llb::pb;
use larder_oci::{EmptyObject, Healthcheck};

use super::asked::DeclaredArg;
use super::dag::Node;
use super::env::{EnvOrigin, split_pair};
use super::{Lowering, ports};
use crate::error::{Error, Lines};
use crate::expand::Expander;
use crate::golang;
use crate::instruction::{ArgPair, CommandLine, Instruction, InstructionKind, Pairs};
use crate::lint::Rule;
use crate::path;

/// ARGs that only tell what to scan; steps do not see them.
pub(super) const SCAN_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
const DIRECTORY_MODE: i32 = 0o755;

impl Lowering<'_> {
    pub(super) fn configure(&mut self, id: usize, instruction: &Instruction) -> Result<(), Error> {
        let line = instruction.lines.start;
        match &instruction.kind {
            InstructionKind::Arg(pairs) => return self.args(id, pairs, instruction.lines),
            InstructionKind::Env(pairs) => {
                self.check_pairs(instruction, pairs);
                return self.env(id, &pairs.pairs, line);
            }
            InstructionKind::Label(pairs) => {
                self.check_pairs(instruction, pairs);
                return self.labels(id, &pairs.pairs);
            }
            InstructionKind::Expose(words) => return self.expose(id, words),
            InstructionKind::Volume(words) => return self.volumes(id, words),
            InstructionKind::Cmd(command) => {
                self.check_command(id, instruction, command);
                let words = self.with_shell(id, command);
                let text = format!("CMD {}", golang::quote_list(&words));
                let state = &mut self.stages.states[id];
                state.image.config.cmd = Some(words);
                state.image.config.args_escaped = true;
                self.commit(id, text, false);
            }
            InstructionKind::Entrypoint(command) => {
                self.check_command(id, instruction, command);
                let words = self.with_shell(id, command);
                let text = format!("ENTRYPOINT {}", golang::quote_list(&words));
                let state = &mut self.stages.states[id];
                state.image.config.entrypoint = Some(words).filter(|words| !words.is_empty());
                if !state.last_given.contains_key("CMD") {
                    state.image.config.cmd = None;
                }
                self.commit(id, text, false);
            }
            InstructionKind::Healthcheck(check) => {
                self.check_once(id, instruction);
                let text = healthcheck_text(check);
                self.stages.states[id].image.config.healthcheck = Some(check.clone());
                self.commit(id, text, false);
            }
            InstructionKind::Maintainer(author) => {
                self.stages.states[id].image.author.clone_from(author);
                self.commit(id, format!("MAINTAINER {author}"), false);
            }
            InstructionKind::Onbuild(trigger) => {
                let config = &mut self.stages.states[id].image.config;
                config.on_build.push(trigger.clone());
            }
            InstructionKind::Shell(words) => {
                let config = &mut self.stages.states[id].image.config;
                config.shell.clone_from(words);
                self.commit(id, format!("SHELL [{}]", words.join(" ")), false);
            }
            InstructionKind::StopSignal(word) => {
                let signal = self.expand(id, word)?;
                check_signal(&signal)?;
                let config = &mut self.stages.states[id].image.config;
                config.stop_signal.clone_from(&signal);
                self.commit(id, format!("STOPSIGNAL {signal}"), false);
            }
            InstructionKind::User(word) => {
                let user = self.expand(id, word)?;
                let state = &mut self.stages.states[id];
                state.user.clone_from(&user);
                state.image.config.user.clone_from(&user);
                self.commit(id, format!("USER {user}"), false);
            }
            InstructionKind::Copy(_) | InstructionKind::Run(_) | InstructionKind::Workdir(_) => {
                unreachable!("steps are lowered elsewhere")
            }
        }
        Ok(())
    }

    /// Checks that ENV or LABEL is written with `=`.
    fn check_pairs(&self, instruction: &Instruction, pairs: &Pairs) {
        if pairs.is_legacy {
            let keyword = &instruction.keyword;
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.lint.warn(Rule::LegacyKeyValueFormat, message);
        }
    }

    /// Checks CMD or ENTRYPOINT: that it is the only one, and needs no shell that nobody chose.
    fn check_command(&mut self, id: usize, instruction: &Instruction, command: &CommandLine) {
        self.check_once(id, instruction);
        let shell = &self.stages.states[id].image.config.shell;
        if shell.is_empty() && matches!(command, CommandLine::Shell(_)) {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                instruction.keyword
            );
            self.lint.warn(Rule::JsonArgsRecommended, message);
        }
    }

    /// Checks that an instruction is the only one of its kind: the one before has no effect.
    fn check_once(&mut self, id: usize, instruction: &Instruction) {
        let kind = match instruction.kind {
            InstructionKind::Cmd(_) => "CMD",
            InstructionKind::Entrypoint(_) => "ENTRYPOINT",
            _ => "HEALTHCHECK",
        };
        let given = &mut self.stages.states[id].last_given;
        if let Some(before) = given.insert(kind, instruction.lines) {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                instruction.keyword
            );
            let rule = Rule::MultipleInstructionsDisallowed;
            self.lint.warn_at(rule, before, message);
        }
    }

    fn args(&mut self, id: usize, pairs: &[ArgPair], lines: Lines) -> Result<(), Error> {
        let line = lines.start;
        let mut texts = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let name = &pair.name;
            self.lint.secret("ARG", name);
            let mut is_global = false;
            let (value, origin) = if let Some(value) = self.options.build_args.get(name) {
                let origin = EnvOrigin::Arg { line, given: true };
                (Some(value.clone()), origin)
            } else if let Some(default) = &pair.default {
                let origin = EnvOrigin::Arg { line, given: false };
                (Some(self.expand(id, default)?), origin)
            } else {
                let global = self.stages.global.lookup(name);
                is_global = global.is_some();
                let given = matches!(global, Some((_, EnvOrigin::Arg { given: true, .. })));
                let value = global.map(|(value, _)| value.to_owned());
                (value, EnvOrigin::Arg { line, given })
            };
            let state = &mut self.stages.states[id];
            state.asked.uses([name]);
            if !is_global {
                let arg = DeclaredArg {
                    value: value.clone().unwrap_or_default(),
                    description: pair.description.clone(),
                    lines,
                    ..DeclaredArg::default()
                };
                state.asked.declares(name, arg);
            }
            match &value {
                Some(value) => {
                    texts.push(format!("{name}={value}"));
                    if !SCAN_ARGS.contains(&name.as_str()) {
                        state.env.set(name, value, origin);
                    }
                }
                None => texts.push(name.clone()),
            }
            state.args.push((name.clone(), value));
        }
        self.commit(id, format!("ARG {}", texts.join(" ")), false);
        Ok(())
    }

    fn expand_pairs(
        &self,
        id: usize,
        keyword: &str,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, Error> {
        let expand = |(name, value): &(String, String)| {
            let name = self.expand(id, name)?;
            if name.is_empty() {
                let message = format!("{keyword} names can not be blank");
                return Err(Error::dockerfile(message));
            }
            Ok((name, self.expand(id, value)?))
        };
        pairs.iter().map(expand).collect()
    }

    fn env(&mut self, id: usize, pairs: &[(String, String)], line: u32) -> Result<(), Error> {
        let pairs = self.expand_pairs(id, "ENV", pairs)?;
        let state = &mut self.stages.states[id];
        // The image's list keeps its order, unlike that of the steps.
        let list = &mut state.image.config.env;
        let names = list.iter().map(|text| split_pair(text).0.to_owned());
        let mut places: BTreeMap<String, usize> = names.zip(0..).collect();
        for (name, value) in &pairs {
            self.lint.secret("ENV", name);
            state.env.set(name, value, EnvOrigin::Env { line });
            let place = *places.entry(name.clone()).or_insert(list.len());
            let text = format!("{name}={value}");
            match list.get_mut(place) {
                Some(known) => *known = text,
                None => list.push(text),
            }
        }
        self.commit(id, pairs_text("ENV", &pairs), false);
        Ok(())
    }

    fn labels(&mut self, id: usize, pairs: &[(String, String)]) -> Result<(), Error> {
        let pairs = self.expand_pairs(id, "LABEL", pairs)?;
        let text = pairs_text("LABEL", &pairs);
        let labels = &mut self.stages.states[id].image.config.labels;
        labels.extend(pairs);
        self.commit(id, text, false);
        Ok(())
    }

    fn expose(&mut self, id: usize, words: &[String]) -> Result<(), Error> {
        let expander = Expander::new(self.dockerfile.escape);
        let mut specs = Vec::with_capacity(words.len());
        for word in words {
            let result = expander.expand(word, &self.stages.states[id].env);
            let result = result.map_err(Error::dockerfile)?;
            self.count_text(result.text.len())?;
            specs.extend(result.words);
        }
        for spec in &specs {
            ports::check(spec, self.lint);
        }
        let ports = ports::parse(&specs)?;
        let text = format!("EXPOSE [{}]", ports.join(" "));
        let exposed = &mut self.stages.states[id].image.config.exposed_ports;
        exposed.extend(ports.into_iter().map(|port| (port, EmptyObject {})));
        self.commit(id, text, false);
        Ok(())
    }

    fn volumes(&mut self, id: usize, words: &[String]) -> Result<(), Error> {
        let paths = self.expand_all(id, words)?;
        if paths.iter().any(String::is_empty) {
            return Err(Error::dockerfile(
                "VOLUME specified can not be an empty string",
            ));
        }
        let text = format!("VOLUME [{}]", paths.join(" "));
        let volumes = &mut self.stages.states[id].image.config.volumes;
        volumes.extend(paths.into_iter().map(|path| (path, EmptyObject {})));
        self.commit(id, text, false);
        Ok(())
    }

    /// Returns the words to run: a text is given to the shell.
    pub(super) fn with_shell(&self, id: usize, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(text) => self.shell_words(id, text),
        }
    }

    pub(super) fn shell_words(&self, id: usize, text: &str) -> Vec<String> {
        let shell = &self.stages.states[id].image.config.shell;
        let mut words = if shell.is_empty() {
            vec!["/bin/sh".to_owned(), "-c".to_owned()]
        } else {
            shell.clone()
        };
        words.push(text.to_owned());
        words
    }

    pub(super) fn workdir(
        &mut self,
        id: usize,
        instruction: &Instruction,
        word: &str,
    ) -> Result<(), Error> {
        let given = self.expand(id, word)?;
        let state = &mut self.stages.states[id];
        if !std::mem::replace(&mut state.has_workdir, true) && !given.starts_with('/') {
            let quoted = golang::quote(&given);
            let message = format!(
                "Relative workdir {quoted} can have unexpected results if the base image changes"
            );
            self.lint.warn(Rule::WorkdirRelativePath, message);
        }
        // BuildKit keeps an absolute path as it is written, trailing slash and all.
        let dir = if given.starts_with('/') {
            given
        } else {
            path::absolute(&state.image.config.working_dir, &given)
        };
        state.image.config.working_dir.clone_from(&dir);
        state.dir.clone_from(&dir);
        let makes_layer = dir != "/";
        if makes_layer {
            self.make_directory(id, instruction, &dir);
        }
        self.commit(id, format!("WORKDIR {dir}"), makes_layer);
        Ok(())
    }

    fn make_directory(&mut self, id: usize, instruction: &Instruction, dir: &str) {
        let expander = Expander::new(self.dockerfile.escape);
        let env = &self.stages.states[id].env;
        let text = self.shown_text(expander, &instruction.code, env);
        let name = self.next_step(id, &text);
        let state = &self.stages.states[id];
        let base = if state.output.is_some() { 0 } else { -1 };
        let user = &state.image.config.user;
        let mkdir = pb::FileActionMkDir {
            path: path::absolute("/", dir),
            mode: DIRECTORY_MODE,
            make_parents: true,
            owner: Some(user)
                .filter(|user| !user.is_empty())
                .map(|user| owner(user, base)),
            timestamp: self.timestamp(),
        };
        let action = pb::FileAction {
            input: base,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkdir(mkdir)),
        };
        let mut node = file_node(vec![action], name).at(instruction.lines);
        node.inputs.extend(state.output);
        node.step = Some(self.step_info(id, instruction));
        let output = self.dag.add(node);
        self.stages.states[id].output = Some(output);
    }

    /// Returns whether a step ignores the cache.
    pub(super) fn ignores_cache(&self, id: usize) -> bool {
        self.stages.states[id].no_cache
    }
}

/// Returns a node of file actions.
pub(super) fn file_node(actions: Vec<pb::FileAction>, name: String) -> Node {
    let mut node = Node::new(pb::op::Op::File(pb::FileOp { actions }), name);
    node.cap("file.base");
    node
}

/// Reads `user[:group]`; names are looked up in the input `base`, -1 for none.
pub(super) fn owner(text: &str, base: i64) -> pb::ChownOpt {
    let user = |text: &str| {
        let id = if text.is_empty() || text == "root" {
            Some(0)
        } else {
            text.parse::<i32>().ok()
        };
        let user = match id {
            Some(id) => pb::user_opt::User::ById(id as u32),
            None => pb::user_opt::User::ByName(pb::NamedUserOpt {
                name: text.to_owned(),
                input: base,
            }),
        };
        pb::UserOpt { user: Some(user) }
    };
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    pb::ChownOpt {
        user: Some(user(name)),
        group: group.map(user),
    }
}

fn pairs_text(keyword: &str, pairs: &[(String, String)]) -> String {
    let mut text = keyword.to_owned();
    for (name, value) in pairs {
        text.push(' ');
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text
}

fn healthcheck_text(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        golang::format_duration(check.interval),
        golang::format_duration(check.timeout),
        golang::format_duration(check.start_period),
        golang::format_duration(check.start_interval),
        check.retries
    )
}

const SIGNALS: [&str; 37] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
    "RTMAX",
];
/// RTMIN+1 to RTMIN+15, and RTMAX-1 to RTMAX-14.
const REAL_TIME_STEPS: [(&str, u32); 2] = [("RTMIN+", 15), ("RTMAX-", 14)];

fn check_signal(signal: &str) -> Result<(), Error> {
    let upper = signal.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = match signal.parse::<i32>() {
        Ok(number) => number != 0,
        Err(_) => {
            SIGNALS.contains(&name)
                || REAL_TIME_STEPS.iter().any(|(prefix, most)| {
                    let step = name.strip_prefix(prefix).and_then(|n| n.parse().ok());
                    step.is_some_and(|step: u32| (1..=*most).contains(&step))
                })
        }
    };
    if known {
        return Ok(());
    }
    Err(Error::dockerfile(format!("invalid signal: {signal}")))
}
