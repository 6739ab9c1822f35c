//! Running `git`.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use larder_store::Watch;
use rustix::process::{Pid, Signal, kill_process_group};

use super::Access;
use super::auth::Auth;
use crate::error::{BuildError, ErrorClass, Result};
use crate::task::Tasks;

/// As much as is kept of what a command tells: the listing of a repository with a million files.
const MAX_OUTPUT_BYTES: u64 = 256 << 20;
/// As much as is kept of what a command complains of.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Between two looks at whether a command is still wanted.
const INTERVAL: Duration = Duration::from_millis(20);
/// What is spoken with servers.
const REMOTE_PROTOCOLS: &str = "http:https:ssh:git";

/// What `git` gets of this program's environment.
const PASSED: [&str; 10] = [
    "PATH",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Its only configuration: no hooks, no helpers, no collector that takes what we still want.
const CONFIG: [(&str, &str); 14] = [
    ("advice.detachedHead", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("credential.helper", ""),
    ("fetch.unpackLimit", "1"),
    ("gc.auto", "0"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "300"),
    ("init.defaultBranch", "master"),
    ("maintenance.auto", "false"),
    ("protocol.version", "2"),
    ("tar.umask", "0022"),
];

/// A way to run `git`.
pub(super) struct Git<'a> {
    pub(super) access: Access<'a>,
    pub(super) auth: &'a Auth,
}

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It said so itself, with these words.
    Said(String),
    /// It could not be run, was canceled, or its output could not be used.
    Other(BuildError),
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// Returns the error of `what` that failed.
    pub(super) fn of(self, what: impl std::fmt::Display) -> BuildError {
        match self {
            Self::Other(error) => error,
            Self::Said(text) => {
                let (class, hint) = classify(&text);
                let error = BuildError::new(class, format!("{what}: {}", one_line(&text)));
                match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
        }
    }
}

/// One command.
pub(super) struct Call<'c> {
    args: Vec<&'c str>,
    /// The repository, if the command works on one.
    git_dir: Option<&'c Path>,
    /// Where it runs.
    directory: &'c Path,
    protocols: &'c str,
    stdin: Option<File>,
    watch: Option<Watch>,
}

impl<'c> Call<'c> {
    /// A command that works on no repository of ours.
    pub(super) fn new(args: &[&'c str]) -> Self {
        Self {
            args: args.to_vec(),
            git_dir: None,
            directory: Path::new("/"),
            protocols: REMOTE_PROTOCOLS,
            stdin: None,
            watch: None,
        }
    }

    /// A command on a repository.
    pub(super) fn on(git_dir: &'c Path, args: &[&'c str]) -> Self {
        Self {
            git_dir: Some(git_dir),
            ..Self::new(args)
        }
    }

    /// Runs it in a directory.
    pub(super) fn within(self, directory: &'c Path) -> Self {
        Self { directory, ..self }
    }

    /// Lets it read from another repository on this machine, and from no server.
    pub(super) fn locally(self) -> Self {
        Self {
            protocols: "file",
            ..self
        }
    }

    /// Gives it a file to read.
    pub(super) fn reading(self, file: File) -> Self {
        Self {
            stdin: Some(file),
            ..self
        }
    }

    /// Ends it before what it writes passes the ceiling of the store.
    pub(super) fn watched(self, watch: Option<Watch>) -> Self {
        Self { watch, ..self }
    }
}

impl Git<'_> {
    /// Runs a command; returns what it told.
    pub(super) fn run(&self, call: Call<'_>) -> Result<Vec<u8>, Failure> {
        self.read(call, |stdout| {
            let mut bytes = Vec::new();
            let failed = |source| {
                BuildError::new(ErrorClass::Unavailable, "cannot read from git").with_source(source)
            };
            let mut limited = stdout.take(MAX_OUTPUT_BYTES + 1);
            limited.read_to_end(&mut bytes).map_err(failed)?;
            if bytes.len() as u64 > MAX_OUTPUT_BYTES {
                return Err(BuildError::invalid("git tells more than 256 MiB"));
            }
            Ok(bytes)
        })
    }

    /// Runs a command; returns the first line of what it told.
    pub(super) fn line(&self, call: Call<'_>) -> Result<String, Failure> {
        let bytes = self.run(call)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Runs a command, and hands what it tells to `take`.
    pub(super) fn read<T>(
        &self,
        mut call: Call<'_>,
        take: impl FnOnce(&mut dyn Read) -> Result<T>,
    ) -> Result<T, Failure> {
        self.access.cancel.check()?;
        let watch = call.watch.take();
        let mut command = self.command(&call);
        if let Some(file) = call.stdin.take() {
            command.stdin(file);
        }
        let mut child = command.spawn().map_err(not_started)?;
        let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(BuildError::internal("git has no output").into());
        };
        let group = Pid::from_child(&child);
        let cancel = self.access.cancel;
        std::thread::scope(|scope| {
            let failed = |source| {
                end(group);
                BuildError::new(ErrorClass::Exhausted, "cannot start a thread").with_source(source)
            };
            let (ended, ends) = mpsc::channel::<()>();
            let complaints = Tasks::spawn(scope, "git errors", move || complaints(stderr));
            let complaints = complaints.map_err(failed)?;
            let look = move || watch_over(group, watch, &ends, &|| cancel.is_set());
            let watcher = Tasks::spawn(scope, "git watch", look).map_err(failed)?;
            let taken = take(&mut stdout);
            // Who is not read from any more is to end.
            drop(stdout);
            let status = child.wait();
            drop(ended);
            let text = complaints.join().unwrap_or_default();
            let panicked = |_| BuildError::internal("the watch of git panicked");
            watcher.join().map_err(panicked)??;
            cancel.check()?;
            match (status, taken) {
                (Ok(status), Ok(value)) if status.success() => Ok(value),
                // It stopped because its output was not taken.
                (_, Err(error)) if text.is_empty() => Err(error.into()),
                (Ok(_), _) => Err(Failure::Said(text)),
                (Err(source), _) => {
                    let error = BuildError::new(ErrorClass::Exhausted, "cannot wait for git");
                    Err(error.with_source(source).into())
                }
            }
        })
    }

    fn command(&self, call: &Call<'_>) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        for name in PASSED {
            if let Some(value) = (self.access.variables)(name) {
                command.env(name, value);
            }
        }
        if let Some(bundle) = (self.access.variables)("SSL_CERT_FILE") {
            command.env("GIT_SSL_CAINFO", bundle);
        }
        command
            .env("LC_ALL", "C")
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CEILING_DIRECTORIES", "/")
            .env("GIT_ALLOW_PROTOCOL", call.protocols)
            .env("GIT_SSH_VARIANT", "ssh")
            .env("GIT_SSH_COMMAND", self.auth.ssh_command());
        if let Some(socket) = self.auth.agent_socket() {
            command.env("SSH_AUTH_SOCK", socket);
        }
        if let Some(git_dir) = call.git_dir {
            command.env("GIT_DIR", git_dir);
        }
        let own = CONFIG.iter().map(|(key, value)| (*key, *value));
        let config = own.chain(self.auth.config());
        let mut count = 0;
        for (index, (key, value)) in config.enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
            count = index + 1;
        }
        command
            .env("GIT_CONFIG_COUNT", count.to_string())
            .args(&call.args)
            .current_dir(call.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its helpers end with it.
            .process_group(0);
        command
    }
}

fn not_started(source: std::io::Error) -> Failure {
    let error = match source.kind() {
        std::io::ErrorKind::NotFound => BuildError::new(
            ErrorClass::NotFound,
            "cannot run `git`: it is not installed",
        )
        .with_hint("install git, which fetches sources from git repositories"),
        _ => BuildError::new(ErrorClass::Exhausted, "cannot run `git`").with_source(source),
    };
    error.into()
}

/// Keeps the end of what a command complains of.
fn complaints(mut stderr: impl Read) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..length]);
        if kept.len() > 2 * MAX_ERROR_BYTES {
            kept.drain(..kept.len() - MAX_ERROR_BYTES);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Ends a command that is not wanted any more, until the other end of `ends` is dropped.
fn watch_over(
    group: Pid,
    mut watch: Option<Watch>,
    ends: &mpsc::Receiver<()>,
    is_canceled: &dyn Fn() -> bool,
) -> Result<()> {
    while ends.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        if is_canceled() {
            end(group);
            return Ok(());
        }
        if let Some(Err(error)) = watch.as_mut().map(Watch::look) {
            end(group);
            return Err(error.into());
        }
    }
    Ok(())
}

fn end(group: Pid) {
    // Gone already is as good.
    let _ = kill_process_group(group, Signal::KILL);
}

/// Returns what a caller can do about the words of git, and what to try.
fn classify(text: &str) -> (ErrorClass, Option<&'static str>) {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["Permission denied (", "Too many authentication failures"]) {
        let hint = "lend an agent or a key that the server knows: `--ssh default`";
        return (ErrorClass::Denied, Some(hint));
    }
    if says(&["Host key verification failed"]) {
        let hint = "the server's key is not the one in `~/.ssh/known_hosts`";
        return (ErrorClass::Denied, Some(hint));
    }
    if says(&[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        " 403",
    ]) {
        let hint = "give a token as the secret `GIT_AUTH_TOKEN`, or `GIT_AUTH_TOKEN.<host>`";
        return (ErrorClass::Denied, Some(hint));
    }
    if says(&[
        "not found",
        "does not exist",
        "does not appear to be a git repository",
    ]) {
        return (ErrorClass::NotFound, None);
    }
    (ErrorClass::Unavailable, None)
}

/// Returns what matters of the words of git: its last fatal line, else its last. What only says
/// that another program has said why does not count.
fn one_line(text: &str) -> String {
    const EMPTY_WORDS: [&str; 3] = [
        "fatal: Could not read from remote repository.",
        "Please make sure you have the correct access rights",
        "and the repository exists.",
    ];
    let lines = || {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !EMPTY_WORDS.contains(line))
    };
    let fatal = lines().rfind(|line| line.starts_with("fatal: ") || line.starts_with("error: "));
    let line = fatal.or(lines().next_back()).unwrap_or("git failed");
    line.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_one_line() {
        for (text, line, class) in [
            (
                "remote: x\nfatal: repository 'http://e/a' not found\n",
                "fatal: repository 'http://e/a' not found",
                ErrorClass::NotFound,
            ),
            (
                "git@e: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\n\
                 Please make sure you have the correct access rights\nand the repository exists.\n",
                "git@e: Permission denied (publickey).",
                ErrorClass::Denied,
            ),
            (
                "fatal: could not read Username for 'http://e': terminal prompts disabled\n",
                "fatal: could not read Username for 'http://e': terminal prompts disabled",
                ErrorClass::Denied,
            ),
            ("\u{1b}[31mred\n", "[31mred", ErrorClass::Unavailable),
            ("", "git failed", ErrorClass::Unavailable),
        ] {
            assert_eq!(one_line(text), line);
            assert_eq!(classify(text).0, class, "{text}");
        }
    }
}
