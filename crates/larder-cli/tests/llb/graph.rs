//! Definitions, and what comes of them.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use larder_llb::pb::file_action::Action;
use larder_llb::pb::op::Op;
use larder_llb::{Message as _, pb};
use larder_oci::Digest;
use larder_testkit::{Larder, OciArchive, Project, Run, Scratch};

/// A state that a definition describes: an output of an op.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) digest: String,
    pub(crate) index: i64,
}

/// A definition in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph {
    pub(crate) definition: pb::Definition,
}

impl Graph {
    pub(crate) fn add(&mut self, op: Op, inputs: &[&State]) -> State {
        let input = |state: &&State| pb::Input {
            digest: state.digest.clone(),
            index: state.index,
        };
        let op = pb::Op {
            op: Some(op),
            inputs: inputs.iter().map(input).collect(),
            ..pb::Op::default()
        };
        let bytes = op.encode_to_vec();
        let digest = Digest::sha256(&bytes).to_string();
        self.definition.def.push(bytes);
        State { digest, index: 0 }
    }

    pub(crate) fn source(&mut self, identifier: &str) -> State {
        self.source_with(identifier, &[])
    }

    pub(crate) fn source_with(&mut self, identifier: &str, attrs: &[(&str, &str)]) -> State {
        let attr = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let source = pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.iter().map(attr).collect(),
        };
        self.add(Op::Source(source), &[])
    }

    pub(crate) fn busybox(&mut self) -> State {
        self.source("docker-image://docker.io/library/busybox:latest")
    }

    /// Runs a command of the shell in `root`, with further mounts; `change` has the last word.
    pub(crate) fn run(
        &mut self,
        root: &State,
        command: &str,
        mounts: &[(&State, pb::Mount)],
        change: impl FnOnce(&mut pb::ExecOp),
    ) -> State {
        let mut inputs = vec![root];
        let mut exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
                cwd: "/".to_owned(),
                ..pb::Meta::default()
            }),
            mounts: vec![bind("/", 0)],
            ..pb::ExecOp::default()
        };
        for (state, mount) in mounts {
            exec.mounts.push(pb::Mount {
                input: inputs.len() as i64,
                ..mount.clone()
            });
            inputs.push(state);
        }
        change(&mut exec);
        self.add(Op::Exec(exec), &inputs)
    }

    pub(crate) fn sh(&mut self, root: &State, command: &str) -> State {
        self.run(root, command, &[], |_| {})
    }

    pub(crate) fn file(
        &mut self,
        actions: Vec<(i64, i64, i64, Action)>,
        inputs: &[&State],
    ) -> State {
        let action = |(input, secondary_input, output, action)| pb::FileAction {
            input,
            secondary_input,
            output,
            action: Some(action),
        };
        let actions = actions.into_iter().map(action).collect();
        self.add(Op::File(pb::FileOp { actions }), inputs)
    }

    pub(crate) fn diff(&mut self, lower: Option<&State>, upper: Option<&State>) -> State {
        let inputs: Vec<&State> = lower.into_iter().chain(upper).collect();
        let lower_input = lower.map_or(-1, |_| 0);
        let diff = pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: lower_input }),
            upper: Some(pb::UpperDiffInput {
                input: upper.map_or(-1, |_| lower_input + 1),
            }),
        };
        self.add(Op::Diff(diff), &inputs)
    }

    pub(crate) fn merge(&mut self, inputs: &[&State]) -> State {
        let input = |input| pb::MergeInput { input };
        let merge = pb::MergeOp {
            inputs: (0..inputs.len() as i64).map(input).collect(),
        };
        self.add(Op::Merge(merge), inputs)
    }

    /// Builds the definition in the file `name` of `state`.
    pub(crate) fn build(&mut self, state: &State, name: &str) -> State {
        let build = pb::BuildOp {
            builder: -1,
            inputs: [(
                "buildkit.llb.definition".to_owned(),
                pb::BuildInput { input: 0 },
            )]
            .into(),
            attrs: [("llbbuild.filename".to_owned(), name.to_owned())].into(),
            ..pb::BuildOp::default()
        };
        self.add(Op::Build(build), &[state])
    }

    /// Says something of a vertex.
    pub(crate) fn about(&mut self, state: &State, change: impl FnOnce(&mut pb::OpMetadata)) {
        let metadata = &mut self.definition.metadata;
        change(metadata.entry(state.digest.clone()).or_default());
    }

    /// Returns the definition of one of the states.
    pub(crate) fn of(&self, state: &State) -> Vec<u8> {
        let input = pb::Input {
            digest: state.digest.clone(),
            index: state.index,
        };
        let tail = pb::Op {
            inputs: vec![input],
            ..pb::Op::default()
        };
        let mut definition = self.definition.clone();
        definition.def.push(tail.encode_to_vec());
        definition.encode_to_vec()
    }
}

pub(crate) fn bind(dest: &str, output: i64) -> pb::Mount {
    pb::Mount {
        dest: dest.to_owned(),
        output,
        ..pb::Mount::default()
    }
}

pub(crate) fn mkfile(path: &str, data: impl Into<Vec<u8>>) -> Action {
    Action::Mkfile(pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: data.into(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    })
}

pub(crate) fn mkdir(path: &str) -> Action {
    Action::Mkdir(pb::FileActionMkDir {
        path: path.to_owned(),
        mode: 0o755,
        make_parents: true,
        timestamp: -1,
        ..pb::FileActionMkDir::default()
    })
}

pub(crate) fn copy(src: &str, dest: &str) -> Action {
    Action::Copy(pb::FileActionCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        timestamp: -1,
        create_dest_path: true,
        dir_copy_contents: true,
        ..pb::FileActionCopy::default()
    })
}

pub(crate) fn rm(path: &str, allow_not_found: bool) -> Action {
    Action::Rm(pb::FileActionRm {
        path: path.to_owned(),
        allow_not_found,
        allow_wildcard: true,
    })
}

pub(crate) fn feed(larder: &Larder, args: &[&str], definition: &[u8]) -> Run {
    let scratch = Scratch::new();
    let file = scratch.join("definition");
    fs::write(&file, definition).unwrap();
    let mut command = larder.command(["llb"]);
    let stdin = std::fs::File::open(&file).unwrap();
    Run::of(command.args(args).stdin(stdin))
}

pub(crate) fn build(project: &Project, args: &[&str], definition: &[u8]) -> Run {
    let args = [&["build", "--progress", "plain"], args].concat();
    feed(project.larder(), &args, definition)
}

/// Builds, and returns the files of the result: paths to what they hold; directories to nothing.
pub(crate) fn files(project: &Project, definition: &[u8]) -> BTreeMap<String, String> {
    files_with(project, &[], definition)
}

/// As [`files`], with further flags.
pub(crate) fn files_with(
    project: &Project,
    args: &[&str],
    definition: &[u8],
) -> BTreeMap<String, String> {
    let out = Scratch::new();
    let directory = out.join("out");
    let flags = [args, &["-o", directory.to_str().unwrap()]].concat();
    let _ = build(project, &flags, definition).success();
    let mut found = BTreeMap::new();
    collect(&directory, Path::new(""), &mut found);
    found
}

pub(crate) fn collect(base: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(base.join(path)).unwrap() {
        let path = path.join(entry.unwrap().file_name());
        let at = base.join(&path);
        let text = if at.is_symlink() {
            format!("-> {}", fs::read_link(&at).unwrap().display())
        } else if at.is_dir() {
            collect(base, &path, found);
            String::new()
        } else {
            fs::read_to_string(&at).unwrap_or_default()
        };
        found.insert(path.to_str().unwrap().to_owned(), text);
    }
}

pub(crate) fn tree(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    let entries = entries.iter();
    entries
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

pub(crate) fn archive(project: &Project, definition: &[u8]) -> OciArchive {
    let path = project.scratch().join("out.tar");
    let output = format!("type=oci,dest={}", path.display());
    let _ = build(project, &["-o", &output], definition).success();
    OciArchive::open(&path).unwrap()
}

pub(crate) fn layers(archive: &OciArchive) -> Vec<Digest> {
    let layers = archive.manifest().unwrap().layers;
    layers.into_iter().map(|layer| layer.digest).collect()
}
