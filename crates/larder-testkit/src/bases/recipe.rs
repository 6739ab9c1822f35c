use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use fs_err as fs;

use super::Base;
use super::layout::{self, Image};
use crate::apt;

/// Debian's release: the one with Python 3.11.
const SUITE: &str = "bookworm";
/// The time of everything in the images, 2025-01-01, in seconds.
pub(super) const EPOCH: u64 = 1_735_689_600;
pub(super) const EPOCH_RFC3339: &str = "2025-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes the archive of `base` to `out`; `work` is an empty folder for what lies in between.
pub(super) fn make(base: Base, work: &Path, out: &Path) -> Result<()> {
    let (env, command): (&[&str], &str) = match base {
        Base::Busybox => (&[PATH], "sh"),
        Base::Debian => (&[PATH], "bash"),
        Base::Python => (&[PATH, "LANG=C.UTF-8", "PYTHON_VERSION=3.11"], "python3"),
    };
    let image = Image {
        name: base.image_name(),
        env,
        command,
    };
    match base {
        Base::Busybox => layout::write(&image, &busybox(work)?[..], work, out),
        Base::Debian => bootstrap(&[], &[], |tar| layout::write(&image, tar, work, out)),
        Base::Python => bootstrap(
            &["ca-certificates", "python3", "python3-venv"],
            PYTHON_HOOKS,
            |tar| layout::write(&image, tar, work, out),
        ),
    }
}

/// What makes Debian's Python look like the official image's: `/usr/local/bin/python`, with a pip
/// that installs to `/usr/local/lib/python3.11/site-packages`. That is what a virtual environment
/// at `/usr/local` is.
const PYTHON_HOOKS: &[&str] = &[
    r#"chroot "$1" python3 -m venv /usr/local"#,
    r#"find "$1/usr" -name __pycache__ -prune -exec rm -rf {} +"#,
];

/// Runs mmdebstrap and hands the tar it makes to `consume`.
fn bootstrap(
    packages: &[&str],
    hooks: &[&str],
    consume: impl FnOnce(&mut dyn Read) -> Result<()>,
) -> Result<()> {
    apt::install(&["mmdebstrap", "debian-archive-keyring"])?;
    apt::update()?;
    let mut command = Command::new("mmdebstrap");
    command
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .args(["--quiet", "--variant=minbase", "--format=tar"])
        .arg("--skip=output/dev,output/mknod")
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/info/*")
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        // The host's own, which mmdebstrap leaves in the tree.
        .arg(r#"--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname""#);
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    for hook in hooks {
        command.arg(format!("--customize-hook={hook}"));
    }
    let mut child = command
        .args([SUITE, "-", &apt::mirror(SUITE)?])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut complaints = child.stderr.take().expect("stderr is piped");
    let complaints = std::thread::spawn(move || {
        let mut text = String::new();
        complaints.read_to_string(&mut text).map(|_| text)
    });
    let mut tar = child.stdout.take().expect("stdout is piped");
    let consumed = consume(&mut tar);
    // Closed first, so that mmdebstrap ends even when its output was not read to the end.
    drop(tar);
    let status = child.wait()?;
    let complaints = complaints.join().expect("reading does not panic")?;
    ensure!(
        status.success(),
        "mmdebstrap failed with {status}: {complaints}"
    );
    consumed
}

/// Returns the tar of busybox's tree.
fn busybox(work: &Path) -> Result<Vec<u8>> {
    apt::update()?;
    apt::output(
        Command::new("apt-get")
            .args(["download", "-qq", "busybox-static"])
            .current_dir(work),
    )?;
    let package = fs::read_dir(work)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = anyhow::Context::context(package, "apt-get downloaded no package")?;
    let tree = work.join("busybox");
    apt::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&tree))?;
    let binary = tree.join("bin/busybox");
    let applets = apt::output(Command::new(&binary).arg("--list"))?;

    let mut tar = layout::TreeWriter::default();
    for (dir, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("var", 0o755),
        ("var/log", 0o755),
        ("var/tmp", 0o1777),
    ] {
        tar.dir(dir, mode)?;
    }
    tar.file("bin/busybox", 0o755, &fs::read(binary)?)?;
    let applets = String::from_utf8(applets)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        tar.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    tar.symlink("usr/bin/env", "../../bin/busybox")?;
    tar.file("etc/passwd", 0o644, PASSWD)?;
    tar.file("etc/group", 0o644, GROUP)?;
    tar.finish()
}

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";

const GROUP: &[u8] = b"root:x:0:
daemon:x:1:
adm:x:4:daemon
www-data:x:33:
staff:x:50:
users:x:100:
nogroup:x:65534:
";
