//! A root filesystem of busybox alone, and running things in it.

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use larder_exec::{Cancel, Error, Exit, Outcome, ProcessSpec, Stream, mount};
use larder_oci::{Mount, MountKind, OverlayUpper};
use tempfile::TempDir;

/// Where a static busybox may be.
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// What it shall be called by in the root filesystem.
const APPLETS: [&str; 33] = [
    "cat", "chmod", "chown", "chroot", "cp", "dd", "df", "echo", "env", "false", "grep", "head",
    "hostname", "id", "kill", "ls", "mkdir", "mknod", "mount", "ping", "ps", "pwd", "rm", "seq",
    "sh", "sleep", "stat", "touch", "true", "unshare", "wc", "ip", "ulimit",
];

/// Returns why processes can't be run here, if they can't.
pub fn why_not() -> Option<&'static str> {
    if busybox().is_none() {
        return Some("no static busybox");
    }
    if larder_exec::rootless::needs_user_namespace() {
        return Some("not root");
    }
    None
}

/// Prints why a test is skipped, if it must be, and returns whether it must.
pub fn skipped() -> bool {
    match why_not() {
        Some(reason) => {
            println!("skipped: {reason}");
            true
        }
        None => false,
    }
}

pub fn busybox() -> Option<&'static str> {
    BUSYBOX.into_iter().find(|path| Path::new(path).exists())
}

/// Makes a root filesystem in a directory.
pub fn populate(root: &Path) {
    for directory in ["bin", "etc", "tmp"] {
        fs_err::create_dir_all(root.join(directory)).unwrap();
    }
    fs_err::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// A root filesystem with an overlay that takes writes.
pub struct Sandbox {
    pub temp: TempDir,
    pub userxattr: bool,
}

/// What a run gave.
#[derive(Debug)]
pub struct Output {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        let temp = TempDir::new().unwrap();
        populate(&temp.path().join("lower"));
        fs_err::create_dir(temp.path().join("upper")).unwrap();
        let userxattr = larder_exec::rootless::id_map() != larder_exec::rootless::IdMap::Full;
        Self { temp, userxattr }
    }

    /// What the process sees, before it changed anything.
    pub fn lower(&self) -> PathBuf {
        self.temp.path().join("lower")
    }

    /// What the process changed.
    pub fn upper(&self) -> PathBuf {
        self.temp.path().join("upper")
    }

    pub fn root(&self) -> OwnedFd {
        // It serves one mount.
        let work = TempDir::new_in(self.temp.path()).unwrap().keep();
        mount::open(&Mount {
            kind: MountKind::Overlay {
                lowers: vec![self.lower().into()],
                upper: Some(OverlayUpper {
                    upper: self.upper(),
                    work,
                }),
                userxattr: self.userxattr,
            },
            readonly: false,
        })
        .unwrap()
    }

    /// Returns a process of a shell that runs `script`.
    pub fn shell(&self, script: &str) -> ProcessSpec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub fn command(&self, args: &[&str]) -> ProcessSpec {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut spec = ProcessSpec::new(self.root(), args);
        spec.env = vec!["PATH=/bin".to_owned(), "HOME=/root".to_owned()];
        "nameserver 192.0.2.1\n".clone_into(&mut spec.resolv_conf);
        spec
    }

    /// Runs a script and returns what it wrote, without the last line's end. It must succeed.
    pub fn says(&self, script: &str) -> String {
        says(self.shell(script))
    }

    /// Returns the relative paths of all that was changed, sorted.
    pub fn changes(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.upper(), Path::new(""), &mut found);
        found.sort();
        found
    }
}

fn collect(root: &Path, below: &Path, found: &mut Vec<String>) {
    for entry in fs_err::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        found.push(path.to_str().unwrap().to_owned());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, found);
        }
    }
}

/// Runs a process and collects its output.
pub fn run(spec: ProcessSpec) -> Result<Output, Error> {
    run_with(spec, &Cancel::new().unwrap(), &mut |_| {})
}

/// Runs a process, collects its output, and shows each piece of standard output as it comes.
pub fn run_with(
    spec: ProcessSpec,
    cancel: &Cancel,
    watch: &mut dyn FnMut(&str),
) -> Result<Output, Error> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = larder_exec::run(
        spec,
        &mut |stream, bytes| match stream {
            Stream::Stdout => {
                stdout.extend_from_slice(bytes);
                watch(&String::from_utf8_lossy(bytes));
            }
            Stream::Stderr => stderr.extend_from_slice(bytes),
        },
        cancel,
    )?;
    Ok(Output {
        exit,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    })
}

/// Runs a process that must succeed, and returns what it wrote, without the last line's end.
pub fn says(spec: ProcessSpec) -> String {
    let output = run(spec).unwrap();
    assert_eq!(output.exit.outcome, Outcome::Exited(0), "{output:?}");
    output.stdout.trim_end().to_owned()
}

/// Returns an error's text with its causes.
pub fn text_of(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let texts: Vec<String> = std::iter::once(error.to_string())
        .chain(causes.map(ToString::to_string))
        .collect();
    texts.join(": ")
}
