//! COPY and ADD.

mod mode;
mod remote;

use larder_llb::pb;
use larder_oci::Digest;

use super::Lowering;
use super::config::{file_node, owner};
use super::dag::{Node, NodeRef};
use super::stages::Command;
use crate::error::Error;
use crate::expand::Expander;
use crate::golang;
use crate::instruction::{Copy, Instruction};
use crate::lint::Rule;
use crate::path;

const DOCUMENT_MODE: i32 = 0o644;
/// As many characters as the ids of BuildKit's progress groups have.
const GROUP_ID_CHARS: usize = 25;

impl Lowering<'_> {
    pub(super) fn copy(&mut self, id: usize, command: &Command, copy: &Copy) -> Result<(), Error> {
        let copy = self.expand_copy(id, copy)?;
        let source = command.source(0);
        check(&copy)?;
        if source.is_none() {
            self.check_ignored(&copy);
        }
        let mode = mode::parse(&copy.chmod)?;
        let destination = self.destination(id, &copy)?;
        let root = match source {
            Some(source) => self.finished_source(id, source, &copy)?,
            None => None,
        };
        // Documents alone do not make the build context needed.
        let root = match source {
            None if !copy.sources.is_empty() => Some(self.locals.context(&mut self.dag)),
            _ => root,
        };
        let name = self.copy_name(id, &command.instruction);
        let linked = copy.link && copy.chmod.is_empty();
        let base = self.stages.states[id].output.filter(|_| !linked);
        let actions = self.actions(&copy, mode, &destination, base, root);
        self.add_copy(id, &command.instruction, actions, &name, linked);
        for used in &copy.sources {
            match source {
                None => self.locals.use_context_path(used),
                Some(source) => {
                    let paths = self.stages.states[source].paths;
                    self.locals.use_path(paths, used);
                }
            }
        }
        self.commit(id, history_text(&copy), true);
        Ok(())
    }

    /// Checks that no source is left out of the context.
    fn check_ignored(&self, copy: &Copy) {
        let Some(ignored) = &self.options.ignored else {
            return;
        };
        let verb = if copy.is_add { "Add" } else { "Copy" };
        for source in &copy.sources {
            let cleaned = path::clean(source);
            if ignored.contains(&cleaned) {
                let quoted = golang::quote(&cleaned);
                let message =
                    format!("Attempting to {verb} file {quoted} that is excluded by .dockerignore");
                self.lint.warn(Rule::CopyIgnoredFile, message);
            }
        }
    }

    fn expand_copy(&self, id: usize, copy: &Copy) -> Result<Copy, Error> {
        let mut expanded = Copy {
            sources: self.expand_all(id, &copy.sources)?,
            destination: self.expand(id, &copy.destination)?,
            chown: self.expand(id, &copy.chown)?,
            chmod: self.expand(id, &copy.chmod)?,
            checksum: self.expand(id, &copy.checksum)?,
            exclude: self.expand_all(id, &copy.exclude)?,
            ..copy.clone()
        };
        let text = Expander {
            ignore_quotes: true,
            ..Expander::new('\\')
        };
        for document in &mut expanded.documents {
            if document.expand {
                document.content = self.expand_checked(text, id, &document.content)?;
            }
        }
        Ok(expanded)
    }

    /// Returns where to copy to. With several sources that must be a directory: one that is
    /// marked so, or one that is known to be.
    fn destination(&self, id: usize, copy: &Copy) -> Result<String, Error> {
        let state = &self.stages.states[id];
        let destination = path::destination(&state.dir, &copy.destination);
        let several = copy.sources.len() + copy.documents.len() > 1;
        let marked = destination.ends_with('/') || destination.ends_with("/.");
        let known = path::absolute("/", &state.dir) + "/";
        if several && !marked && !known.starts_with(&format!("{destination}/")) {
            let keyword = if copy.is_add { "ADD" } else { "COPY" };
            let written = &copy.destination;
            return Err(Error::dockerfile(format!(
                "When using {keyword} with more than one source file, the destination must be a \
                 directory and end with a /\nhint: write `{written}/` instead of `{written}`"
            )));
        }
        Ok(destination)
    }

    fn finished_source(
        &self,
        id: usize,
        source: usize,
        copy: &Copy,
    ) -> Result<Option<NodeRef>, Error> {
        let state = &self.stages.states[source];
        if state.dispatched {
            return Ok(state.output);
        }
        let from = copy.from.as_deref().unwrap_or_default();
        Err(Error::dockerfile(format!(
            "cannot copy from stage {}, it needs to be defined before current stage {}",
            golang::quote(from),
            golang::quote(&self.stages.states[id].shown)
        )))
    }

    fn copy_name(&mut self, id: usize, instruction: &Instruction) -> String {
        let expander = Expander::new(self.dockerfile.escape);
        let env = &self.stages.states[id].env;
        let text = self.shown_text(expander, &instruction.code, env);
        self.next_step(id, &text);
        text
    }

    /// Makes one action a source. The inputs are the base, if any, and each source's.
    fn actions(
        &mut self,
        copy: &Copy,
        mode: mode::Mode,
        destination: &str,
        base: Option<NodeRef>,
        root: Option<NodeRef>,
    ) -> (Vec<pb::FileAction>, Vec<NodeRef>) {
        let mut inputs: Vec<NodeRef> = base.into_iter().collect();
        let base_index = if base.is_some() { 0 } else { -1 };
        let root_index = root.map_or(-1, |root| {
            inputs.push(root);
            inputs.len() as i64 - 1
        });
        let common = pb::FileActionCopy {
            dest: destination.to_owned(),
            owner: Some(copy.chown.as_str())
                .filter(|text| !text.is_empty())
                .map(|text| owner(text, base_index)),
            mode: mode.bits,
            mode_str: mode.symbols,
            create_dest_path: true,
            // A copy keeps the times of its source, also with SOURCE_DATE_EPOCH.
            timestamp: -1,
            exclude_patterns: copy.exclude.clone(),
            ..pb::FileActionCopy::default()
        };
        let mut copies: Vec<(i64, pb::FileActionCopy)> = Vec::new();
        for source in &copy.sources {
            copies.push((root_index, path_copy(copy, source, &common)));
        }
        for document in &copy.documents {
            let file = path::absolute("/", &document.name);
            let content = document.content.clone().into_bytes();
            inputs.push(self.document(&file, content, DOCUMENT_MODE));
            let action = pb::FileActionCopy {
                src: file,
                ..common.clone()
            };
            copies.push((inputs.len() as i64 - 1, action));
        }
        let last = copies.len().saturating_sub(1);
        let chain = copies.into_iter().enumerate();
        let actions = chain.map(|(index, (secondary_input, action))| pb::FileAction {
            // Each action works on what the one before it made.
            input: match index {
                0 => base_index,
                index => (inputs.len() + index - 1) as i64,
            },
            secondary_input,
            output: if index == last { 0 } else { -1 },
            action: Some(pb::file_action::Action::Copy(action)),
        });
        (actions.collect(), inputs.clone())
    }

    /// Adds a file that is written in the Dockerfile.
    pub(super) fn document(&mut self, path: &str, content: Vec<u8>, mode: i32) -> NodeRef {
        let mkfile = pb::FileActionMkFile {
            path: path.to_owned(),
            mode,
            data: content,
            owner: None,
            timestamp: -1,
        };
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkfile(mkfile)),
        };
        let name = "[internal] preparing inline document".to_owned();
        self.dag.add(file_node(vec![action], name))
    }

    fn add_copy(
        &mut self,
        id: usize,
        instruction: &Instruction,
        (actions, inputs): (Vec<pb::FileAction>, Vec<NodeRef>),
        text: &str,
        linked: bool,
    ) {
        let name = self.step_name(id, text);
        let mut node = file_node(actions, name.clone()).at(instruction.lines);
        node.inputs = inputs;
        node.metadata.ignore_cache = self.ignores_cache(id);
        node.step = Some(self.step_info(id, instruction));
        if linked {
            node.metadata.progress_group = Some(self.progress_group(id, &name, true));
        }
        let copied = self.dag.add(node);
        let output = match self.stages.states[id].output.filter(|_| linked) {
            Some(below) => self.add_merge(id, instruction, below, copied, text),
            None => copied,
        };
        self.stages.states[id].output = Some(output);
    }

    /// Lays what `--link` copied over what is below.
    fn add_merge(
        &mut self,
        id: usize,
        instruction: &Instruction,
        below: NodeRef,
        copied: NodeRef,
        text: &str,
    ) -> NodeRef {
        let name = self.step_name(id, &format!("LINK {text}"));
        let merge = pb::MergeOp {
            inputs: vec![pb::MergeInput { input: 0 }, pb::MergeInput { input: 1 }],
        };
        let mut node = Node::new(pb::op::Op::Merge(merge), name).at(instruction.lines);
        node.cap("mergeop");
        node.inputs = vec![below, copied];
        node.metadata.ignore_cache = self.ignores_cache(id);
        node.step = Some(self.step_info(id, instruction));
        let group = self.step_name(id, text);
        node.metadata.progress_group = Some(self.progress_group(id, &group, false));
        self.dag.add(node)
    }

    /// Joins the copy and the merge of one instruction into one step of the progress.
    fn progress_group(&self, id: usize, name: &str, weak: bool) -> pb::ProgressGroup {
        let index = self.stages.states[id].step_index;
        let group = Digest::sha256(format!("{id}/{index}/{name}"));
        pb::ProgressGroup {
            id: group.hex()[..GROUP_ID_CHARS].to_owned(),
            name: name.to_owned(),
            weak,
        }
    }
}

fn check(copy: &Copy) -> Result<(), Error> {
    if !copy.checksum.is_empty() {
        if copy.sources.len() != 1 {
            let message = "checksum can't be specified for multiple sources";
            return Err(Error::dockerfile(message));
        }
        if !remote::is_http(&copy.sources[0]) && !remote::is_git(&copy.sources[0]) {
            let message = "checksum requires HTTP(S) or Git sources";
            return Err(Error::dockerfile(message));
        }
    }
    for source in &copy.sources {
        let (git, http) = (remote::is_git(source), remote::is_http(source));
        let error = match (copy.is_add, git, http) {
            (_, false, false) => continue,
            (false, true, _) => Error::dockerfile("source can't be a git ref for COPY"),
            (false, false, true) => Error::dockerfile("source can't be a URL for COPY"),
            (true, true, _) => Error::unsupported(format!(
                "ADD `{source}` is not available: larder can't fetch git repositories yet"
            )),
            (true, false, true) => Error::unsupported(format!(
                "ADD `{source}` is not available: larder can't download files yet"
            )),
        };
        return Err(error);
    }
    Ok(())
}

/// Makes the action for one source that is a path.
fn path_copy(copy: &Copy, source: &str, common: &pb::FileActionCopy) -> pb::FileActionCopy {
    let mut action = pb::FileActionCopy {
        src: path::absolute("/", source),
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack_docker_compatibility: copy.unpack.unwrap_or(copy.is_add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..common.clone()
    };
    if copy.parents {
        // Behind `/./` the parents are kept.
        let (root, kept) = source.split_once("/./").unwrap_or(("/", source));
        let kept = path::absolute("/", kept);
        action.src = path::absolute("/", root);
        action.include_patterns = vec![kept[1..].to_owned()];
        if !has_wildcards(root) && !has_wildcards(&kept) {
            action.required_paths = vec![path::absolute("/", &format!("{}{kept}", action.src))];
        }
    }
    action
}

fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

fn history_text(copy: &Copy) -> String {
    let mut words = vec![if copy.is_add { "ADD" } else { "COPY" }.to_owned()];
    if copy.parents {
        words.push("--parents".to_owned());
    }
    for (flag, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if !value.is_empty() {
            words.push(format!("--{flag}={value}"));
        }
    }
    words.extend(copy.sources.iter().cloned());
    words.extend(copy.documents.iter().map(|d| format!("<<{}", d.name)));
    words.push(copy.destination.clone());
    words.join(" ") + " # buildkit"
}
