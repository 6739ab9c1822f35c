use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fs_err as fs;

use crate::{Run, apt, target_dir};

/// The version of what is unpacked.
const VERSION: u32 = 1;
/// Between two looks whether the namespace is there.
const POLL: Duration = Duration::from_millis(2);
const POLLS: u32 = 5000;
/// What the shell ends with if the emulator can't be registered.
const UNFIT: i32 = 125;
/// First bytes and mask of programs for `arm64`, as the kernel is told.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str =
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// Waits until the namespace has its ids; the shell it then becomes has all rights in it.
const WAIT: &str = r#"read -r go && exec sh -c "$SETUP" sh "$@""#;
const SETUP: &str = r#"at=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc none $at && printf %s "$EMULATOR" > $at/register || exit 125
exec "$@" < /dev/null"#;

/// Debian's QEMU for programs of `linux/arm64`, for commands in a user namespace of their own: it is
/// registered there, and nothing of the machine changes. Needs root, and Linux 6.7.
pub struct Emulator {
    qemu: PathBuf,
    busybox: PathBuf,
    is_fixed: bool,
}

impl Emulator {
    /// Unpacks the emulator, and a busybox for `arm64`, and tries them.
    ///
    /// # Errors
    /// Where the machine doesn't permit that: the test is to be skipped.
    pub fn new() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "no root");
        ensure!(
            cfg!(target_arch = "x86_64"),
            "the emulator's package is for amd64"
        );
        let directory = unpacked()?;
        let emulator = Self {
            qemu: directory.join("qemu-aarch64-static"),
            busybox: directory.join("busybox"),
            is_fixed: true,
        };
        let mut command = Command::new(&emulator.busybox);
        let run = emulator.run(command.args(["uname", "-m"]));
        ensure!(
            run.code == Some(0) && run.text() == "aarch64",
            "an emulator can't be registered here: {}",
            run.stderr
        );
        Ok(emulator)
    }

    /// Has the kernel look for the emulator by its path, in the tree of each process.
    #[must_use]
    pub fn by_path(self) -> Self {
        let is_fixed = false;
        Self { is_fixed, ..self }
    }

    /// Returns the path of a busybox for `linux/arm64`.
    pub fn busybox(&self) -> &Path {
        &self.busybox
    }

    /// Runs a command, of which but program, arguments, directory and own variables count, where the
    /// emulator is registered.
    ///
    /// # Panics
    /// If the namespace can't be made.
    pub fn run(&self, command: &Command) -> Run {
        self.try_run(command)
            .unwrap_or_else(|error| panic!("no namespace for an emulator: {error:#}"))
    }

    fn try_run(&self, command: &Command) -> Result<Run> {
        let flags = if self.is_fixed { "PF" } else { "P" };
        let qemu = self.qemu.display();
        let registration = format!(":larder-test:M::{MAGIC}:{MASK}:{qemu}:{flags}");
        let mut inside = Command::new("unshare");
        inside
            .args(["--user", "--mount", "sh", "-c", WAIT, "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                inside.env(name, value);
            }
        }
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        inside
            .env("SETUP", SETUP)
            .env("EMULATOR", registration)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let started = std::time::Instant::now();
        let mut child = inside.spawn().context("cannot run `unshare`")?;
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let namespace = |process: &Path| fs::read_link(process.join("ns/user"));
        let own = namespace(Path::new("/proc/self"))?;
        let mut left = POLLS;
        while namespace(&process)? == own {
            ensure!(left > 0, "no user namespace was made");
            left -= 1;
            std::thread::sleep(POLL);
        }
        for map in ["uid_map", "gid_map"] {
            fs::write(process.join(map), "0 0 4294967295")?;
        }
        let mut stdin = child.stdin.take().context("no standard input")?;
        std::io::Write::write_all(&mut stdin, b"go\n")?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(UNFIT) {
            bail!("binfmt_misc has no namespaces here: {stderr}");
        }
        Ok(Run {
            code: output.status.code(),
            stdout: output.stdout,
            stderr,
            elapsed: started.elapsed(),
        })
    }
}

/// Returns the folder with the emulator and the foreign busybox; fills it where it is absent.
fn unpacked() -> Result<PathBuf> {
    let parent = target_dir().join("emulator");
    let directory = parent.join(format!("v{VERSION}"));
    if directory.exists() {
        return Ok(directory);
    }
    fs::create_dir_all(&parent)?;
    let lock = fs::File::create(parent.join("lock"))?;
    lock.file().lock().context("cannot lock the emulator")?;
    if directory.exists() {
        return Ok(directory);
    }
    let work = tempfile::tempdir_in(&parent)?;
    let path = |name: &str| work.path().join(name);
    let qemu = path("qemu");
    apt::update()?;
    unpack("qemu-user-static", &[], &qemu)?;
    let busybox = path("busybox");
    // The lists of another architecture, without a change to the machine's own.
    for part in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(path(part))?;
    }
    let options = [
        "APT::Architecture=arm64".to_owned(),
        "APT::Architectures::=arm64".to_owned(),
        "Dir::State::status=/dev/null".to_owned(),
        format!("Dir::State={}", path("state").display()),
        format!("Dir::Cache={}", path("cache").display()),
    ];
    let options: Vec<&str> = options.iter().flat_map(|text| ["-o", text]).collect();
    apt::output(
        Command::new("apt-get")
            .args(&options)
            .args(["update", "-qq"]),
    )?;
    unpack("busybox-static", &options, &busybox)?;
    let done = path("done");
    fs::create_dir(&done)?;
    for (from, to) in [
        (
            qemu.join("usr/bin/qemu-aarch64-static"),
            "qemu-aarch64-static",
        ),
        (busybox.join("bin/busybox"), "busybox"),
    ] {
        fs::rename(from, done.join(to))?;
    }
    fs::rename(done, &directory)?;
    Ok(directory)
}

/// Downloads a package, and unpacks it into `directory`.
fn unpack(package: &str, options: &[&str], directory: &Path) -> Result<()> {
    fs::create_dir(directory)?;
    let mut command = Command::new("apt-get");
    command
        .args(options)
        .args(["download", "-qq", package])
        .current_dir(directory);
    apt::output(&mut command)?;
    let file = fs::read_dir(directory)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    apt::output(Command::new("dpkg-deb").arg("-x").arg(file).arg(directory)).map(drop)
}
