//! COPY and ADD.

mod mode;

use larder_llb::git::{GitRef, GitSource};
use larder_llb::pb;
use larder_oci::Digest;

use super::Lowering;
use super::config::{file_node, owner as owner_of};
use super::dag::{Node, NodeRef};
use super::remote::{file_name, git_node, http_node};
use super::stages::Command;
use crate::error::{Error, Lines};
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
        let kinds = check(&copy)?;
        let reads_paths = kinds.contains(&Kind::Path);
        if source.is_none() {
            self.check_ignored(&copy, &kinds);
        }
        let mode = mode::parse(&copy.chmod)?;
        let destination = self.destination(id, &copy)?;
        let root = match source {
            Some(source) => self.finished_source(id, source, &copy)?,
            None => None,
        };
        // Only paths make the build context needed.
        let root = match source {
            None if reads_paths => Some(self.locals.context(&mut self.dag)),
            _ => root,
        };
        let name = self.copy_name(id, &command.instruction);
        let linked = copy.link && copy.chmod.is_empty();
        let base = self.stages.states[id].output.filter(|_| !linked);
        let mut sources = Vec::with_capacity(copy.sources.len());
        for (source, kind) in copy.sources.iter().zip(&kinds) {
            sources.push(match kind {
                Kind::Path => (root, path_copy(&copy, source)),
                Kind::Http => {
                    let shown = self.step_name(id, &name);
                    self.download(&copy, source, shown, command.instruction.lines)?
                }
                Kind::Git(named) => {
                    let shown = self.step_name(id, &name);
                    let node = git_node(&git_source(&copy, named)?, shown);
                    let node = self.dag.add(node.at(command.instruction.lines));
                    let action = pb::FileActionCopy {
                        src: "/".to_owned(),
                        ..pb::FileActionCopy::default()
                    };
                    (Some(node), action)
                }
            });
        }
        let actions = self.actions(&copy, &mode, &destination, base, sources);
        self.add_copy(id, &command.instruction, actions, &name, linked);
        let paths = copy.sources.iter().zip(&kinds);
        let paths = paths.filter(|(_, kind)| **kind == Kind::Path);
        for (used, _) in paths {
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
    fn check_ignored(&self, copy: &Copy, kinds: &[Kind]) {
        let Some(ignored) = &self.options.ignored else {
            return;
        };
        let verb = if copy.is_add { "Add" } else { "Copy" };
        let paths = copy.sources.iter().zip(kinds);
        for (source, _) in paths.filter(|(_, kind)| **kind == Kind::Path) {
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

    /// Adds the source vertex of a file that is downloaded, and makes the action that copies it.
    fn download(
        &mut self,
        copy: &Copy,
        url: &str,
        name: String,
        lines: Lines,
    ) -> Result<(Option<NodeRef>, pb::FileActionCopy), Error> {
        let checksum = Some(copy.checksum.as_str()).filter(|text| !text.is_empty());
        let checksum = checksum.map(|text| {
            let failed = |error| {
                Error::dockerfile(format!("invalid checksum {}", golang::quote(text)))
                    .caused_by(error)
            };
            text.parse().map_err(failed)
        });
        let filename = file_name(url);
        let node = http_node(url, &filename, checksum.transpose()?.as_ref(), name);
        let node = self.dag.add(node.command("").at(lines));
        let action = pb::FileActionCopy {
            src: path::absolute("/", &filename),
            attempt_unpack_docker_compatibility: copy.unpack.unwrap_or(false),
            ..pb::FileActionCopy::default()
        };
        Ok((Some(node), action))
    }

    /// Makes one action a source: what of it is special is given. The inputs are the base, if any,
    /// and those of the sources, in the order of their use.
    fn actions(
        &mut self,
        copy: &Copy,
        mode: &mode::Mode,
        destination: &str,
        base: Option<NodeRef>,
        mut sources: Vec<(Option<NodeRef>, pb::FileActionCopy)>,
    ) -> (Vec<pb::FileAction>, Vec<NodeRef>) {
        for document in &copy.documents {
            let file = path::absolute("/", &document.name);
            let content = document.content.clone().into_bytes();
            let node = self.document(&file, content, DOCUMENT_MODE);
            let action = pb::FileActionCopy {
                src: file,
                ..pb::FileActionCopy::default()
            };
            sources.push((Some(node), action));
        }
        let base_index = if base.is_some() { 0 } else { -1 };
        let owner = Some(copy.chown.as_str()).filter(|text| !text.is_empty());
        let owner = owner.map(|text| owner_of(text, base_index));
        let mut inputs: Vec<NodeRef> = base.into_iter().collect();
        let mut copies: Vec<(i64, pb::FileActionCopy)> = Vec::with_capacity(sources.len());
        for (node, action) in sources {
            let input = node.map_or(-1, |node| index_in(&mut inputs, node));
            let action = pb::FileActionCopy {
                dest: destination.to_owned(),
                owner: owner.clone(),
                mode: mode.bits,
                mode_str: mode.symbols.clone(),
                create_dest_path: true,
                // A copy keeps the times of its source, also with SOURCE_DATE_EPOCH.
                timestamp: -1,
                exclude_patterns: copy.exclude.clone(),
                ..action
            };
            copies.push((input, action));
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

/// Returns the place of `node` among the inputs, where it is put if it is not there yet.
fn index_in(inputs: &mut Vec<NodeRef>, node: NodeRef) -> i64 {
    let known = inputs.iter().position(|input| *input == node);
    let index = known.unwrap_or_else(|| {
        inputs.push(node);
        inputs.len() - 1
    });
    index as i64
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Paths of the build context, or of a stage.
    Path,
    /// A file on a web server.
    Http,
    /// A git repository.
    Git(Box<GitRef>),
}

impl Kind {
    fn of(source: &str) -> Result<Self, Error> {
        match GitRef::parse(source) {
            // What could be a path is one.
            Some(Ok(named)) if !named.looks_local => Ok(Self::Git(Box::new(named))),
            Some(Err(error)) if !source.starts_with("github.com/") => {
                Err(Error::dockerfile(error.to_string()))
            }
            None if source.starts_with("http://") || source.starts_with("https://") => {
                Ok(Self::Http)
            }
            _ => Ok(Self::Path),
        }
    }
}

/// Returns what each source is, if it may be that here.
fn check(copy: &Copy) -> Result<Vec<Kind>, Error> {
    let kinds: Result<Vec<Kind>, Error> = copy.sources.iter().map(|it| Kind::of(it)).collect();
    let kinds = kinds?;
    if !copy.checksum.is_empty() {
        if copy.sources.len() != 1 {
            let message = "checksum can't be specified for multiple sources";
            return Err(Error::dockerfile(message));
        }
        if kinds[0] == Kind::Path {
            let message = "checksum requires HTTP(S) or Git sources";
            return Err(Error::dockerfile(message));
        }
    }
    for kind in kinds.iter().filter(|_| !copy.is_add) {
        match kind {
            Kind::Path => {}
            Kind::Git(_) => return Err(Error::dockerfile("source can't be a git ref for COPY")),
            Kind::Http => return Err(Error::dockerfile("source can't be a URL for COPY")),
        }
    }
    Ok(kinds)
}

/// Returns the source for a repository that ADD names: what its flags say must not be other than
/// what the URL says.
fn git_source(copy: &Copy, named: &GitRef) -> Result<GitSource, Error> {
    if let (Some(flag), Some(query)) = (copy.keep_git_dir, named.keep_git_dir)
        && flag != query
    {
        return Err(Error::dockerfile("inconsistent keep-git-dir configuration"));
    }
    let mut source = GitSource::new(named, copy.keep_git_dir == Some(true));
    if !copy.checksum.is_empty() {
        if !source.checksum.is_empty() && source.checksum != copy.checksum {
            return Err(Error::dockerfile(format!(
                "checksum mismatch {} != {}",
                golang::quote(&copy.checksum),
                golang::quote(&source.checksum)
            )));
        }
        source.checksum.clone_from(&copy.checksum);
    }
    Ok(source)
}

/// Makes what is special in the action for a source that is a path.
fn path_copy(copy: &Copy, source: &str) -> pb::FileActionCopy {
    let mut action = pb::FileActionCopy {
        src: path::absolute("/", source),
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack_docker_compatibility: copy.unpack.unwrap_or(copy.is_add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..pb::FileActionCopy::default()
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
