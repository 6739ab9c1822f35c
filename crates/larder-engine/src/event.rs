//! What a build tells while it runs. Renderers are pure functions of these events.
//!
//! The shapes are those of BuildKit's `SolveStatus` (vertexes, statuses, logs, warnings), plus
//! the cause of each cache miss.

use std::path::PathBuf;

use jiff::Timestamp;
pub use larder_llb::{SourceFile, SourceRange};
use larder_oci::Digest;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// A vertex became known, started, or completed. Sent again with more fields set; a renderer
    /// replaces what it knew.
    Vertex(VertexEvent),
    /// A part of a vertex's work began, went on or ended (`transferring context`, a layer).
    Status(StatusEvent),
    /// Output of a running step.
    Log(LogEvent),
    /// Something the user should know that does not stop the build.
    Warning(WarningEvent),
    /// Why a vertex was not cached.
    Miss(MissEvent),
}

/// The state of a vertex.
#[derive(Debug, Clone, PartialEq)]
pub struct VertexEvent {
    /// The vertex.
    pub digest: Digest,
    /// The vertices it reads.
    pub inputs: Vec<Digest>,
    /// As shown, `[2/5] RUN make`.
    pub name: String,
    /// When its work began; `None` until then.
    pub started: Option<Timestamp>,
    /// When it ended; `None` until then.
    pub completed: Option<Timestamp>,
    /// Whether its result was found and not made.
    pub cached: bool,
    /// Why it failed; a text that ends with `context canceled` means it was canceled.
    pub error: Option<String>,
    /// Vertices of one group are shown as one step.
    pub progress_group: Option<ProgressGroup>,
}

/// Vertices that are shown as one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Equal for all vertices of the group.
    pub id: String,
    /// As shown.
    pub name: String,
    /// Whether the group is cached only if a vertex outside of it, or a strong one, is.
    pub weak: bool,
}

/// The state of a part of a vertex's work.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusEvent {
    /// What is worked on, as shown: `transferring context:`, `sha256:…`, `extracting sha256:…`.
    pub id: String,
    /// The vertex.
    pub vertex: Digest,
    /// Bytes done; 0 where bytes make no sense.
    pub current: u64,
    /// Bytes in all; 0 where unknown.
    pub total: u64,
    /// When this was so.
    pub timestamp: Timestamp,
    /// When the work began.
    pub started: Option<Timestamp>,
    /// When it ended; `None` while it goes on.
    pub completed: Option<Timestamp>,
}

/// Output of a running step.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEvent {
    /// The vertex.
    pub vertex: Digest,
    /// Where it was written.
    pub stream: LogStream,
    /// The bytes, as written; not necessarily whole lines, nor UTF-8.
    pub data: Vec<u8>,
    /// When it was read.
    pub timestamp: Timestamp,
}

/// Where a step wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something the user should know that does not stop the build.
#[derive(Debug, Clone, PartialEq)]
pub struct WarningEvent {
    /// The vertex it is about.
    pub vertex: Digest,
    /// 1 for most; higher is less urgent.
    pub level: u32,
    /// One line.
    pub short: String,
    /// Further lines.
    pub detail: Vec<String>,
    /// Where to read more; empty for nowhere.
    pub url: String,
    /// The text it is about.
    pub source: Option<SourceFile>,
    /// The lines it is about.
    pub ranges: Vec<SourceRange>,
}

/// Why a vertex was not cached.
#[derive(Debug, Clone, PartialEq)]
pub struct MissEvent {
    /// The vertex.
    pub vertex: Digest,
    /// The cause.
    pub cause: MissCause,
}

/// Why a step's result was not found. `Display` gives the one line that users see.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum MissCause {
    /// No result of this step is on record.
    FirstBuild,
    /// `--no-cache` or `--no-cache-filter` asked for it.
    NoCache {
        /// The flag, as given.
        flag: String,
    },
    /// An imported cache has its result, which could not be fetched.
    Lost,
    /// The result was pruned.
    Pruned {
        /// When, if known.
        at: Option<Timestamp>,
    },
    /// A file that the step reads differs.
    File {
        /// Relative to the context or stage.
        path: PathBuf,
        /// How.
        change: FileChange,
        /// How many more files differ.
        others_count: usize,
    },
    /// A file was renamed, with its content unchanged.
    Renamed {
        /// The name before.
        from: PathBuf,
        /// The name now.
        to: PathBuf,
        /// How many more files differ.
        others_count: usize,
    },
    /// A build argument in scope differs.
    Arg {
        /// Its name.
        name: String,
        /// The line of the ARG instruction, if known.
        line: Option<u32>,
    },
    /// An environment variable differs.
    Env {
        /// Its name.
        name: String,
        /// The line of the ENV instruction, if known.
        line: Option<u32>,
    },
    /// The base image differs.
    BaseImage {
        /// As named in FROM.
        image_ref: String,
        /// The digest before.
        from: Option<Digest>,
        /// The digest now.
        to: Digest,
    },
    /// What was fetched from elsewhere differs.
    Source {
        /// Its address.
        name: String,
        /// What told so: `ETag`, `Last-Modified`, `the content`, …
        what: String,
    },
    /// The instruction's text differs.
    Instruction {
        /// The line, if known.
        line: Option<u32>,
        /// What of it: `command`, `destination`, `--chown`, `user`, `mount /x`, …
        what: String,
    },
    /// The ignore file differs, and so does what the step reads.
    IgnoreFile {
        /// `.dockerignore`, or the Dockerfile's own.
        name: String,
        /// The file whose presence it changed.
        path: PathBuf,
    },
    /// The platform differs.
    Platform {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// A step before it ran again and is its input.
    Input {
        /// That step's name.
        step: String,
    },
    /// It stands on another step, or on another image, than before.
    Moved {
        /// The instruction that it follows now.
        after: String,
    },
}

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChange {
    /// Its bytes.
    Content,
    /// Its permission bits.
    Mode,
    /// Its user or group.
    Owner,
    /// Its kind, link target, device numbers or extended attributes.
    Kind,
    /// It was not there before.
    Added,
    /// It is no longer there.
    Removed,
}

impl std::fmt::Display for MissCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let others = |f: &mut std::fmt::Formatter<'_>, count: usize| match count {
            0 => Ok(()),
            1 => write!(f, ", and 1 more file"),
            count => write!(f, ", and {count} more files"),
        };
        let at_line = |f: &mut std::fmt::Formatter<'_>, line: &Option<u32>| match line {
            Some(line) => write!(f, ", line {line}"),
            None => Ok(()),
        };
        match self {
            Self::FirstBuild => f.write_str("no earlier result of this step"),
            Self::NoCache { flag } => write!(f, "`{flag}` was given"),
            Self::Lost => f.write_str("its imported result can't be fetched"),
            Self::Pruned { at: None } => f.write_str("its result was pruned"),
            Self::Pruned { at: Some(at) } => write!(f, "its result was pruned at {at:.0}"),
            Self::File {
                path,
                change,
                others_count,
            } => {
                let what = match change {
                    FileChange::Content => "changed",
                    FileChange::Mode => "changed its mode",
                    FileChange::Owner => "changed its owner",
                    FileChange::Kind => "changed its kind or attributes",
                    FileChange::Added => "was added",
                    FileChange::Removed => "was removed",
                };
                write!(f, "`{}` {what}", path.display())?;
                others(f, *others_count)
            }
            Self::Renamed {
                from,
                to,
                others_count,
            } => {
                write!(f, "`{}` was renamed to `{}`", from.display(), to.display())?;
                others(f, *others_count)
            }
            Self::Arg { name, line } => {
                write!(f, "`ARG {name}` changed")?;
                at_line(f, line)
            }
            Self::Env { name, line } => {
                write!(f, "`ENV {name}` changed")?;
                at_line(f, line)
            }
            Self::BaseImage {
                image_ref,
                from,
                to,
            } => {
                write!(f, "base image `{image_ref}` changed")?;
                let short = |digest: &Digest| digest.hex().chars().take(12).collect::<String>();
                match from {
                    Some(from) => write!(f, " from {} to {}", short(from), short(to)),
                    None => write!(f, " to {}", short(to)),
                }
            }
            Self::Source { name, what } => write!(f, "`{name}` changed ({what})"),
            Self::Instruction { line, what } => {
                write!(f, "{what} changed")?;
                at_line(f, line)
            }
            Self::IgnoreFile { name, path } => write!(
                f,
                "`{name}` changed: it now decides otherwise on `{}`",
                path.display()
            ),
            Self::Platform { from, to } => write!(f, "the platform changed from {from} to {to}"),
            Self::Input { step } => write!(f, "{step} ran again"),
            Self::Moved { after } => write!(f, "it now follows `{after}`"),
        }
    }
}

/// Takes the events of a build, in order, from one thread at a time.
pub trait EventSink: Send + Sync {
    /// Takes one event. Must not block for long: the build waits.
    fn event(&self, event: BuildEvent);
}

impl<F: Fn(BuildEvent) + Send + Sync> EventSink for F {
    fn event(&self, event: BuildEvent) {
        self(event);
    }
}
