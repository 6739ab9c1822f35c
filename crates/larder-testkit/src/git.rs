use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{WebAnswer, WebRequest, WebServer, write_tree};

/// When everything is committed, in seconds since 1970.
const COMMITTED_AT: u64 = 1_600_000_000;

/// A git repository with a work tree, whose hashes are the same each time it is made.
pub struct GitRepository {
    path: PathBuf,
}

impl GitRepository {
    /// Makes an empty repository, whose branch is `main`.
    pub fn create(path: &Path) -> Self {
        let this = Self {
            path: path.to_owned(),
        };
        fs_err::create_dir_all(path).unwrap_or_else(|error| panic!("{error}"));
        this.git(["init", "--quiet", "--initial-branch=main"]);
        this
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes files, see [`write_tree`], and commits all that is there. Returns the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        write_tree(&self.path, files);
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "--message", "x"]);
        self.git(["rev-parse", "HEAD"])
    }

    /// Runs `git ARGS…` in it; returns what it said.
    pub fn git<I>(&self, args: I) -> String
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let date = format!("{COMMITTED_AT} +0000");
        let mut command = Command::new("git");
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ALLOW_PROTOCOL", "file:http")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .args(["-c", "user.name=t", "-c", "user.email=t@t.test"])
            .args(args)
            .current_dir(&self.path);
        let output = crate::apt::output(&mut command).unwrap_or_else(|error| panic!("{error:#}"));
        String::from_utf8_lossy(&output).trim().to_owned()
    }
}

/// Serves the repositories below a directory over http, by git's own server program.
pub struct GitServer {
    server: WebServer,
    required: Arc<Mutex<Option<String>>>,
}

impl GitServer {
    /// Serves `directory` on a free loopback port.
    pub fn start(directory: &Path) -> Self {
        let root = directory.to_owned();
        let required: Arc<Mutex<Option<String>>> = Arc::default();
        let wanted = Arc::clone(&required);
        let server = WebServer::start(move |request, _| {
            let wanted = wanted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if wanted.is_some() && request.header("authorization") != wanted.as_deref() {
                return WebAnswer::status(401).header("WWW-Authenticate", "Basic realm=\"t\"");
            }
            answer(&root, request)
        });
        Self { server, required }
    }

    /// Lets nobody in from now on who does not send this `Authorization` header.
    pub fn require(&self, authorization: &str) {
        let mut required = self.required.lock().unwrap_or_else(PoisonError::into_inner);
        *required = Some(authorization.to_owned());
    }

    /// Returns the address of a repository, by its path below the directory.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.server.host())
    }

    /// Returns `127.0.0.1:port`.
    pub fn host(&self) -> &str {
        self.server.host()
    }

    /// Returns how often it was asked what references there are, and how often for commits, since
    /// the last time.
    pub fn asked(&self, before: &mut usize) -> (usize, usize) {
        let requests = self.server.requests();
        let new = &requests[*before..];
        let count = |command: &str| {
            let asks = |it: &&WebRequest| it.body.contains(&format!("command={command}"));
            new.iter().filter(asks).count()
        };
        *before = requests.len();
        (count("ls-refs"), count("fetch"))
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<WebRequest> {
        self.server.requests()
    }
}

/// Lets `git http-backend` answer, which is a CGI program.
fn answer(root: &Path, request: &WebRequest) -> WebAnswer {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
    let run = || -> std::io::Result<Vec<u8>> {
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", request.bytes.len().to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("GIT_PROTOCOL", header("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Who does not read all has its reasons, and answers.
            let _ = stdin.write_all(&request.bytes);
        }
        Ok(child.wait_with_output()?.stdout)
    };
    let told = run().unwrap_or_else(|error| panic!("cannot run `git http-backend`: {error}"));
    let end = told.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end else {
        return WebAnswer::status(500);
    };
    let mut answer = WebAnswer::status(200).body(&told[end + 4..]);
    for line in String::from_utf8_lossy(&told[..end]).lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => {
                let number = status.split(' ').next().and_then(|text| text.parse().ok());
                answer.status = number.unwrap_or(500);
            }
            Some((name, value)) => answer = answer.header(name, value),
            None => {}
        }
    }
    answer
}
