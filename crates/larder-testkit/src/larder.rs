use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Scratch, User};

/// The environment that larder gets from the test's own: what it takes to reach a registry and to
/// find programs. All else would make a test depend on who runs it.
const PASSED: [&str; 10] = [
    "PATH",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// Runs the real `larder` on a state root.
///
/// ```no_run
/// # use larder_testkit::{Larder, Scratch};
/// let scratch = Scratch::new();
/// let larder = Larder::new("target/debug/larder", &scratch);
/// let run = larder.run(["build", "--progress", "plain", "."]).success();
/// assert!(run.stderr.contains("CACHED"));
/// ```
#[derive(Debug, Clone)]
pub struct Larder {
    binary: PathBuf,
    root: PathBuf,
    home: PathBuf,
    env: Vec<(OsString, OsString)>,
    user: Option<User>,
}

impl Larder {
    /// Runs `binary` (in larder's own tests `env!("CARGO_BIN_EXE_larder")`) on the state root of
    /// `scratch`.
    pub fn new(binary: impl Into<PathBuf>, scratch: &Scratch) -> Self {
        Self {
            binary: binary.into(),
            root: scratch.root(),
            home: scratch.home(),
            env: Vec::new(),
            user: None,
        }
    }

    /// Uses another state root.
    #[must_use]
    pub fn with_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = root.into();
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn with_env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs as `user`, to whom `scratch` must belong. The binary is copied there: the user may not
    /// reach the one that cargo made.
    #[must_use]
    pub fn as_user(mut self, user: User, scratch: &Scratch) -> Self {
        let copy = scratch.join("larder");
        // By another program: what this process has open for writing, a command that another
        // test starts at that moment has, too, and the kernel then refuses to run it.
        let copied = Command::new("cp").arg(&self.binary).arg(&copy).status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "the binary can't be copied"
        );
        self.binary = copy;
        self.with_user(user)
    }

    /// Runs as `user`, who must reach the binary, and to whom the scratch folder must belong.
    #[must_use]
    pub fn with_user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Returns the state root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the command `larder --root ROOT ARGS…`, for tests that start or kill it themselves.
    pub fn command<I>(&self, args: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .envs(
                PASSED
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("HOME", &self.home)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            user.run(&mut command);
        }
        command
    }

    /// Runs larder to its end.
    pub fn run<I>(&self, args: I) -> Run
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Run::of(&mut self.command(args))
    }
}

/// What a finished command said.
#[derive(Debug, Clone)]
pub struct Run {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
    /// Time on the clock.
    pub elapsed: Duration,
}

impl Run {
    /// Runs `command` to its end.
    pub fn of(command: &mut Command) -> Self {
        let start = Instant::now();
        let output = command.output().unwrap_or_else(|error| {
            panic!("cannot run {}: {error}", command.get_program().display())
        });
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            elapsed: start.elapsed(),
        }
    }

    /// Returns standard output as text, without the space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Panics, showing all that was said, unless the command succeeded.
    #[track_caller]
    #[must_use]
    pub fn success(self) -> Self {
        self.exit(0)
    }

    /// Panics, showing all that was said, unless the command exited with `code`.
    #[track_caller]
    #[must_use]
    pub fn exit(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "expected exit code {code}, got {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// Panics, showing standard error, unless it holds `text`.
    #[track_caller]
    #[must_use]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "expected `{text}` in stderr:\n{}",
            self.stderr
        );
        self
    }

    /// Returns how many steps were `CACHED`, by the plain progress on standard error.
    pub fn cached_count(&self) -> usize {
        let cached = |line: &&str| line.starts_with('#') && line.ends_with(" CACHED");
        self.stderr.lines().filter(cached).count()
    }
}
