//! The instructions of the Dockerfile language, as data. Variables are not expanded yet.

use larder_oci::Healthcheck;

use crate::error::Lines;
use crate::lint::LintOptions;

/// One instruction with its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) kind: InstructionKind,
    /// The first word, as written.
    pub(crate) keyword: String,
    /// The text as written, joined to one line.
    pub(crate) code: String,
    pub(crate) lines: Lines,
    /// What the comment above says of checks.
    pub(crate) lint: LintOptions,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InstructionKind {
    Arg(Vec<ArgPair>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(Pairs),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Pairs),
    Maintainer(String),
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

impl InstructionKind {
    /// Returns whether the instruction counts as a step.
    pub(crate) fn is_step(&self) -> bool {
        matches!(self, Self::Copy(_) | Self::Run(_) | Self::Workdir(_))
    }
}

/// `ARG name[=default]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArgPair {
    pub(crate) name: String,
    pub(crate) default: Option<String>,
    /// What the comment above says of it.
    pub(crate) description: String,
}

/// `name=value …` of ENV and LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pairs {
    pub(crate) pairs: Vec<(String, String)>,
    /// Whether it is one pair, written `name value`.
    pub(crate) is_legacy: bool,
}

/// A command: a list of words, or a text for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandLine {
    Exec(Vec<String>),
    Shell(String),
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Copy {
    /// Whether it is ADD.
    pub(crate) is_add: bool,
    pub(crate) from: Option<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) documents: Vec<Document>,
    pub(crate) destination: String,
    pub(crate) chown: String,
    pub(crate) chmod: String,
    pub(crate) checksum: String,
    pub(crate) link: bool,
    pub(crate) parents: bool,
    pub(crate) unpack: Option<bool>,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) exclude: Vec<String>,
}

/// A file that is written in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) content: String,
    pub(crate) expand: bool,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) command: CommandLine,
    /// Documents: name and content.
    pub(crate) documents: Vec<(String, String)>,
    /// Whether the command is one document and nothing else.
    pub(crate) is_script: bool,
    pub(crate) mounts: Vec<MountFlag>,
    pub(crate) network: RunNetwork,
    pub(crate) insecure: bool,
    pub(crate) devices: Vec<DeviceFlag>,
}

/// `--device=…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeviceFlag {
    /// `vendor.com/class=name`, or a class of devices.
    pub(crate) name: String,
    /// Whether the step fails without it.
    pub(crate) required: bool,
}

/// `--mount=…`: its text, for variables are allowed in it, and its `from`, where they are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountFlag {
    pub(crate) text: String,
    pub(crate) from: Option<String>,
}

/// `--network=…`.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq)]
pub(crate) enum RunNetwork {
    Default,
    None,
    Host,
}

/// FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) base: String,
    /// Lower case.
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
    /// The first word, as written.
    pub(crate) keyword: String,
    pub(crate) code: String,
    pub(crate) lines: Lines,
    /// What the comment above says of the stage.
    pub(crate) description: String,
    /// What the comments say of checks.
    pub(crate) lint: LintOptions,
}
