//! What a process finds in its tree, and what it leaves there.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, symlink};

use larder_exec::mount::{self, Access};
use larder_exec::{ExtraHost, MountPoint, MountSource, Outcome};

use crate::fixture::{Sandbox, run, says, skipped, text_of};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    (
        "names_and_servers_are_as_given",
        names_and_servers_are_as_given,
    ),
    ("sizes_in_memory_are_as_given", sizes_in_memory_are_as_given),
    ("tmpfs_is_bounded_and_gone", tmpfs_is_bounded_and_gone),
    (
        "secret_is_seen_and_leaves_no_trace",
        secret_is_seen_and_leaves_no_trace,
    ),
    ("directory_is_bound", directory_is_bound),
    ("file_is_bound", file_is_bound),
    ("mounts_lie_in_mounts", mounts_lie_in_mounts),
    (
        "empty_root_gets_system_directories_only",
        empty_root_gets_system_directories_only,
    ),
    ("mount_points_leave_no_trace", mount_points_leave_no_trace),
    (
        "mount_points_that_were_filled_stay",
        mount_points_that_were_filled_stay,
    ),
    (
        "mount_points_are_removed_after_failures",
        mount_points_are_removed_after_failures,
    ),
    ("links_do_not_lead_out", links_do_not_lead_out),
    (
        "changes_go_to_the_upper_directory",
        changes_go_to_the_upper_directory,
    ),
    (
        "overlay_can_be_worked_beneath",
        overlay_can_be_worked_beneath,
    ),
];

/// A time long ago, that no run could give.
const LONG_AGO: i64 = 1_000_000_000;

fn point(target: &str, source: MountSource) -> MountPoint {
    MountPoint {
        target: target.to_owned(),
        source,
        readonly: false,
    }
}

fn bound(path: &std::path::Path) -> MountSource {
    MountSource::Bind(mount::bind(path, Access::ReadWrite).unwrap())
}

fn names_and_servers_are_as_given() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("hostname; cat /etc/hosts /etc/resolv.conf");
    spec.extra_hosts = vec![ExtraHost {
        ip: "10.1.2.3".to_owned(),
        name: "db".to_owned(),
    }];
    assert_eq!(
        says(spec),
        "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb\nnameserver 192.0.2.1"
    );
    let mut spec = sandbox.shell("hostname; grep -c custom /etc/hosts");
    "custom".clone_into(&mut spec.hostname);
    assert_eq!(says(spec), "custom\n1");
    let script = "for file in hosts resolv.conf; do echo x >> /etc/$file; done; true";
    let output = run(sandbox.shell(script)).unwrap();
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2);
}

fn sizes_in_memory_are_as_given() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let script = "df -k /dev /dev/shm | while read a b c; do echo $b; done";
    let mut spec = sandbox.shell(script);
    spec.shm_bytes = 3 << 20;
    assert_eq!(says(spec), "1K-blocks\n65536\n3072");
}

fn tmpfs_is_bounded_and_gone() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec =
        sandbox.shell("stat -c %a /scratch; dd if=/dev/zero of=/scratch/x bs=1M count=3");
    spec.mounts = vec![point(
        "/scratch",
        MountSource::Tmpfs {
            size_bytes: Some(1 << 20),
        },
    )];
    let output = run(spec).unwrap();
    assert_eq!(output.stdout, "1777\n");
    assert!(output.stderr.contains("No space left"), "{output:?}");
    assert!(!sandbox.upper().join("scratch").exists());
}

fn secret_is_seen_and_leaves_no_trace() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("cat /run/secrets/tok; stat -c ' %a %u:%g' /run/secrets/tok");
    spec.mounts = vec![point(
        "/run/secrets/tok",
        MountSource::Secret {
            content: b"s3cret".to_vec(),
            mode: 0o440,
            uid: 5,
            gid: 6,
        },
    )];
    assert!(!format!("{spec:?}").contains("115"), "bytes of the secret");
    assert_eq!(says(spec), "s3cret 440 5:6");
    assert_eq!(sandbox.changes(), ["dev", "proc", "sys", "etc"].sorted());
}

/// Sorting in an expression.
trait Sorted {
    fn sorted(self) -> Vec<String>;
}

impl<const N: usize> Sorted for [&str; N] {
    fn sorted(self) -> Vec<String> {
        let mut all: Vec<String> = self.iter().map(|&item| item.to_owned()).collect();
        all.sort();
        all
    }
}

fn directory_is_bound() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let shared = sandbox.temp.path().join("shared");
    fs_err::create_dir(&shared).unwrap();
    fs_err::write(shared.join("old"), "kept").unwrap();
    let mut spec = sandbox.shell("cat /cache/old; echo new > /cache/new");
    spec.mounts = vec![point("/cache", bound(&shared))];
    assert_eq!(says(spec), "kept");
    assert_eq!(fs_err::read_to_string(shared.join("new")).unwrap(), "new\n");

    let mut spec = sandbox.shell("echo no > /cache/new");
    spec.mounts = vec![MountPoint {
        readonly: true,
        ..point("/cache", bound(&shared))
    }];
    let output = run(spec).unwrap();
    assert!(
        output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
    assert_eq!(output.exit.outcome, Outcome::Exited(1));
}

fn file_is_bound() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let file = sandbox.temp.path().join("ca.pem");
    fs_err::write(&file, "certificate").unwrap();
    let mut spec = sandbox.shell("cat /etc/ssl/certs/ca.pem");
    spec.mounts = vec![MountPoint {
        readonly: true,
        ..point("/etc/ssl/certs/ca.pem", bound(&file))
    }];
    assert_eq!(says(spec), "certificate");
    assert!(!sandbox.upper().join("etc/ssl").exists());
}

fn mounts_lie_in_mounts() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let inner = sandbox.temp.path().join("inner");
    fs_err::create_dir(&inner).unwrap();
    fs_err::write(inner.join("file"), "deep").unwrap();
    let mut spec = sandbox.shell("cat /a/b/c/file; echo x > /a/y");
    spec.mounts = vec![
        point("/a", MountSource::Tmpfs { size_bytes: None }),
        point("/a/b/c", bound(&inner)),
    ];
    assert_eq!(says(spec), "deep");
    assert!(!sandbox.upper().join("a").exists());
}

fn empty_root_gets_system_directories_only() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    // The program itself comes by a mount, so the root is empty.
    let empty = sandbox.temp.path().join("empty");
    fs_err::create_dir(&empty).unwrap();
    let mut spec = sandbox.command(&["/bin/busybox", "ls", "-A", "/"]);
    spec.root = mount::bind(&empty, Access::ReadWrite).unwrap();
    spec.mounts = vec![point("/bin", bound(&sandbox.lower().join("bin")))];
    assert_eq!(says(spec), "bin\ndev\netc\nproc\nsys");
    let mut left: Vec<_> = fs_err::read_dir(&empty)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["dev", "proc", "sys"]);
}

fn mount_points_leave_no_trace() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let (lower, upper) = (sandbox.lower(), sandbox.upper());
    for directory in ["dev", "proc", "sys"] {
        fs_err::create_dir(lower.join(directory)).unwrap();
    }
    set_mtime(&lower.join("etc"), LONG_AGO);
    let mut spec = sandbox.shell("true");
    spec.mounts = vec![
        point("/run/a/b/c", MountSource::Tmpfs { size_bytes: None }),
        point("/run/a/d", bound(&sandbox.lower().join("bin/busybox"))),
    ];
    says(spec);
    // The directory was touched, but its times are what they were.
    assert_eq!(sandbox.changes(), ["etc"]);
    assert_eq!(
        fs_err::metadata(upper.join("etc")).unwrap().mtime(),
        LONG_AGO
    );

    // A change by the process itself still shows.
    says(sandbox.shell("touch /etc/own"));
    assert_eq!(sandbox.changes(), ["etc", "etc/own"]);
    assert_ne!(
        fs_err::metadata(upper.join("etc")).unwrap().mtime(),
        LONG_AGO
    );
}

fn set_mtime(path: &std::path::Path, seconds: i64) {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

fn mount_points_that_were_filled_stay() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("echo x > /made/file");
    spec.mounts = vec![point(
        "/made/by/mount",
        MountSource::Tmpfs { size_bytes: None },
    )];
    says(spec);
    assert!(sandbox.upper().join("made/file").exists());
    assert!(!sandbox.upper().join("made/by").exists());
}

fn mount_points_are_removed_after_failures() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.command(&["/missing"]);
    spec.mounts = vec![
        point("/stub/one", MountSource::Tmpfs { size_bytes: None }),
        // A directory can't be mounted on a file.
        point("/bin/busybox", MountSource::Tmpfs { size_bytes: None }),
    ];
    let error = run(spec).unwrap_err();
    assert_eq!(error.kind(), larder_exec::ErrorKind::Input);
    assert_eq!(
        text_of(&error),
        "cannot mount `/bin/busybox`: Not a directory (os error 20)"
    );
    assert!(!sandbox.upper().join("stub").exists());
}

fn links_do_not_lead_out() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let outside = sandbox.temp.path().join("outside");
    fs_err::create_dir(&outside).unwrap();
    let lower = sandbox.lower();
    symlink(&outside, lower.join("absolute")).unwrap();
    symlink("../../../../../../../..", lower.join("up")).unwrap();
    symlink("/var/real", lower.join("dangling")).unwrap();
    symlink("loop", lower.join("loop")).unwrap();
    let tmpfs = || MountSource::Tmpfs { size_bytes: None };
    let mut spec = sandbox.shell(
        "echo x > /absolute/stub/x && echo x > /up/mnt/x && echo x > /var/real/sub/x && ls /mnt",
    );
    spec.mounts = vec![
        point("/absolute/stub", tmpfs()),
        point("/up/mnt", tmpfs()),
        point("/dangling/sub", tmpfs()),
    ];
    "/absolute/work".clone_into(&mut spec.cwd);
    assert_eq!(says(spec), "x");
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0);
    assert!(!sandbox.upper().join("mnt").exists());
    assert!(!sandbox.upper().join("var").exists());

    let mut spec = sandbox.shell("true");
    spec.mounts = vec![point("/loop/x", tmpfs())];
    let error = run(spec).unwrap_err();
    assert_eq!(
        text_of(&error),
        "cannot mount `/loop/x`: Too many levels of symbolic links (os error 40)"
    );
}

fn changes_go_to_the_upper_directory() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.says("echo x > /tmp/new; rm /bin/wc; mkdir /made");
    assert_eq!(
        sandbox.changes(),
        [
            "bin", "bin/wc", "dev", "etc", "made", "proc", "sys", "tmp", "tmp/new"
        ]
    );
    assert!(sandbox.lower().join("bin/wc").symlink_metadata().is_ok());
}

fn overlay_can_be_worked_beneath() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let root: OwnedFd = sandbox.root();
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::openat(&root, "etc/made", flags, mode).unwrap();
    // Also after a run has taken it into its own namespace, and after that is gone.
    let mut spec = sandbox.shell("ls /etc/made");
    spec.root = root.try_clone().unwrap();
    assert_eq!(says(spec), "/etc/made");
    rustix::fs::openat(&root, "etc/later", flags, mode).unwrap();
    assert!(sandbox.upper().join("etc/later").exists());
}
