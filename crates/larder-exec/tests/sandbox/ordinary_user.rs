//! Running as who is not root, with and without subordinate ids.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder_exec::mount::{self, Access};
use larder_exec::probe::{self, Overlay};
use larder_exec::rootless::{self, IdMap};
use larder_exec::{ErrorKind, MountPoint, MountSource, Network};

use crate::fixture::{Sandbox, run, says, skipped};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    ("root_needs_no_user_namespace", root_needs_no_user_namespace),
    (
        "user_runs_with_subordinate_ids",
        user_runs_with_subordinate_ids,
    ),
    ("user_runs_with_a_single_id", user_runs_with_a_single_id),
    (
        "user_namespace_needs_a_single_thread",
        user_namespace_needs_a_single_thread,
    ),
];

pub const PARTS: &[Case] = &[
    ("@subordinate", subordinate),
    ("@single", single),
    ("@threads", threads),
];

/// Debian's `nobody`: `newuidmap` wants an entry in the password file.
const UID: u32 = 65534;

fn root_needs_no_user_namespace() {
    if skipped() {
        return;
    }
    assert!(!rootless::needs_user_namespace());
    assert_eq!(rootless::id_map(), IdMap::Full);
    let sandbox = Sandbox::new();
    let probed = probe::overlay(sandbox.temp.path());
    assert!(
        matches!(probed, Overlay::Available { userxattr: false }),
        "{probed:?}"
    );
    assert!(matches!(
        probe::overlay(Path::new("/proc")),
        Overlay::Unavailable(_)
    ));
    let names: Vec<_> = fs_err::read_dir(sandbox.temp.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "the probe leaves nothing: {names:?}");
}

/// Runs a part as an ordinary user, in a directory of its own; `path` is where it looks for
/// programs.
fn run_as_user(part: &str, path: &str) {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path();
    // Where this program lies, the user may not be able to look.
    let program = own.join("sandbox");
    fs_err::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs_err::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::set_permissions(own, PermissionsExt::from_mode(0o755)).unwrap();
    let temp = own.join("tmp");
    fs_err::create_dir(&temp).unwrap();
    std::os::unix::fs::chown(&temp, Some(UID), Some(UID)).unwrap();
    let output = Command::new(program)
        .arg(part)
        .uid(UID)
        .gid(UID)
        .current_dir(&temp)
        .env_clear()
        .env("PATH", path)
        .env("TMPDIR", &temp)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if let Some(reason) = said.lines().find(|line| line.starts_with("skipped: ")) {
        println!("{reason}");
        return;
    }
    assert!(
        output.status.success(),
        "{}{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Lines for the user in the files of subordinate ids, for the time of a test.
struct SubordinateIds(Vec<(PathBuf, String)>);

impl SubordinateIds {
    fn give(count: u32) -> Self {
        let files = ["/etc/subuid", "/etc/subgid"].map(PathBuf::from);
        let before = files.map(|file| {
            let text = fs_err::read_to_string(&file).unwrap_or_default();
            let more = format!("{text}{UID}:2000000000:{count}\n");
            fs_err::write(&file, more).unwrap();
            (file, text)
        });
        Self(before.into())
    }
}

impl Drop for SubordinateIds {
    fn drop(&mut self) {
        for (file, text) in &self.0 {
            fs_err::write(file, text).unwrap();
        }
    }
}

fn user_runs_with_subordinate_ids() {
    if skipped() {
        return;
    }
    if !Path::new("/usr/bin/newuidmap").exists() {
        println!("skipped: no `newuidmap`");
        return;
    }
    let _ids = SubordinateIds::give(65536);
    run_as_user("@subordinate", "/usr/bin:/bin");
}

fn user_runs_with_a_single_id() {
    if skipped() {
        return;
    }
    // No programs are found, so that it makes no difference what is installed.
    run_as_user("@single", "/nonexistent");
}

fn user_namespace_needs_a_single_thread() {
    if skipped() {
        return;
    }
    run_as_user("@threads", "/nonexistent");
}

/// Enters a user namespace; returns whether this machine lets it.
fn enter() -> bool {
    assert!(rootless::needs_user_namespace());
    if let Err(error) = rootless::enter_user_namespace() {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        println!("skipped: {error}");
        return false;
    }
    assert!(!rootless::needs_user_namespace());
    true
}

/// Part.
fn subordinate() {
    if !enter() {
        return;
    }
    assert_eq!(rootless::id_map(), IdMap::Subordinate(65537));
    check_sandbox(&Sandbox::new());
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("id -u; id -g; id -G; touch /tmp/mine; stat -c %u:%g /tmp/mine");
    spec.user.uid = 1000;
    spec.user.gid = 1001;
    spec.user.groups = vec![7];
    let tmp = sandbox.lower().join("tmp");
    fs_err::set_permissions(tmp, PermissionsExt::from_mode(0o1777)).unwrap();
    assert_eq!(says(spec), "1000\n1001\n1001 7\n1000:1001");
    sandbox.says("chown 33:34 /etc");
}

/// Part.
fn single() {
    if !enter() {
        return;
    }
    assert_eq!(rootless::id_map(), IdMap::Single);
    let sandbox = Sandbox::new();
    check_sandbox(&sandbox);
    let mut spec = sandbox.shell("true");
    spec.user.uid = 1000;
    let error = run(spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(
        error.to_string(),
        "cannot become user 1000:0\nhint: map more ids to this user in /etc/subuid and /etc/subgid, \
         and install `newuidmap` and `newgidmap`"
    );
}

/// What must hold whatever ids there are.
fn check_sandbox(sandbox: &Sandbox) {
    let probed = probe::overlay(sandbox.temp.path());
    assert!(
        matches!(probed, Overlay::Available { userxattr: true }),
        "{probed:?}"
    );
    assert_eq!(
        sandbox.says("id -u; echo $$; hostname"),
        "0\n1\nbuildkitsandbox"
    );
    sandbox.says(
        "echo x > /dev/null; dd if=/dev/zero of=/tmp/z bs=1k count=1 2>/dev/null; test -c /dev/tty",
    );
    sandbox.says("rm /bin/wc; mkdir /tmp/new; ls /sys/kernel > /dev/null; test -e /dev/pts/ptmx");
    assert_eq!(sandbox.says("cat /etc/resolv.conf"), "nameserver 192.0.2.1");
    let status = says(sandbox.command(&["grep", "-E", "^(CapEff|Seccomp):", "/proc/self/status"]));
    assert_eq!(
        status.replace('\t', " "),
        "CapEff: 00000000a80425fb\nSeccomp: 2"
    );
    assert_eq!(
        sandbox.says("touch /sys/x /proc/sys/x 2>/dev/null || echo refused"),
        "refused"
    );

    let mut spec = sandbox.shell("ls /sys/class/net; cat /run/secrets/tok");
    spec.network = Network::None;
    let shared = sandbox.temp.path().join("shared");
    fs_err::create_dir(&shared).unwrap();
    fs_err::write(shared.join("file"), "bound").unwrap();
    let mount_point = |target: &str, source| MountPoint {
        target: target.to_owned(),
        source,
        readonly: true,
    };
    spec.mounts = vec![
        mount_point(
            "/cache",
            MountSource::Bind(mount::bind(&shared, Access::ReadWrite).unwrap()),
        ),
        mount_point(
            "/run/secrets/tok",
            MountSource::Secret {
                content: b"s3cret".to_vec(),
                mode: 0o400,
                uid: 0,
                gid: 0,
            },
        ),
    ];
    assert_eq!(says(spec), "lo\ns3cret");
    assert!(!sandbox.upper().join("cache").exists());

    let script = "(sleep 1000 &); exit 3";
    for _ in 0..20 {
        let outcome = run(sandbox.shell(script)).unwrap().exit.outcome;
        assert_eq!(outcome, larder_exec::Outcome::Exited(3));
    }
    larder_exec::shutdown();
}

/// Part.
fn threads() {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv());
    let error = rootless::enter_user_namespace().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "cannot create a user namespace: threads are running already"
    );
    drop(sender);
    thread.join().unwrap().unwrap_err();
}
