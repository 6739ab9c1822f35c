//! What a process can't do, and what it must be able to.

use larder_exec::{Network, Outcome, ProcessSpec};

use crate::fixture::{Sandbox, run, says, skipped};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    ("capabilities_are_dockers", capabilities_are_dockers),
    ("users_have_no_capabilities", users_have_no_capabilities),
    ("forbidden_calls_fail", forbidden_calls_fail),
    ("ordinary_calls_work", ordinary_calls_work),
    ("set_user_id_programs_work", set_user_id_programs_work),
    ("kernel_interfaces_are_masked", kernel_interfaces_are_masked),
    (
        "kernel_interfaces_are_read_only",
        kernel_interfaces_are_read_only,
    ),
    (
        "nothing_of_the_host_is_mounted",
        nothing_of_the_host_is_mounted,
    ),
    ("root_cannot_be_left", root_cannot_be_left),
    ("chroots_are_no_place_to_run", chroots_are_no_place_to_run),
    ("no_network_but_loopback", no_network_but_loopback),
    ("host_network_is_the_hosts", host_network_is_the_hosts),
    (
        "own_program_cannot_be_written",
        own_program_cannot_be_written,
    ),
    ("cgroup_is_its_own", cgroup_is_its_own),
];

pub const PARTS: &[Case] = &[("@run_here", run_here)];

fn status(spec: ProcessSpec) -> String {
    says(spec)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

fn capabilities_are_dockers() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let pattern = "^(Cap|NoNewPrivs|Seccomp:)";
    assert_eq!(
        status(sandbox.command(&["grep", "-E", pattern, "/proc/self/status"])),
        "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\n\
         CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 0\nSeccomp: 2\n"
    );
}

fn users_have_no_capabilities() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.command(&["grep", "^Cap", "/proc/self/status"]);
    spec.user.uid = 1000;
    assert_eq!(
        status(spec),
        "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
         CapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\n"
    );
}

fn forbidden_calls_fail() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    for script in [
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /proc/sys",
        "unshare -U true",
        "unshare -m true",
        "hostname other",
        "ip link set lo down",
        "ip link add name dummy9 type dummy",
    ] {
        let output = run(sandbox.shell(script)).unwrap();
        assert_ne!(output.exit.outcome, Outcome::Exited(0), "{script}");
        let said = output.stderr.to_lowercase();
        assert!(
            said.contains("permitted") || said.contains("denied"),
            "{script}: {said}"
        );
    }
}

fn ordinary_calls_work() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.says(
        "set -e
         chown 1:2 /tmp; mknod /tmp/null c 1 3; chroot / true
         echo x > /dev/null; dd if=/dev/zero of=/tmp/z bs=1k count=1 2>/dev/null
         dd if=/dev/urandom of=/tmp/r bs=1k count=1 2>/dev/null
         echo x > /dev/shm/x; test -d /dev/mqueue; test -e /dev/pts/ptmx; test -c /dev/ptmx
         ! echo x > /dev/full; test -c /dev/tty; test -c /dev/random
         test \"$(echo inner | cat /dev/stdin)\" = inner",
    );
}

fn set_user_id_programs_work() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    // `su` and `sudo` of images rely on it.
    let root = sandbox.says("head -n 1 /proc/self/mounts");
    assert!(!root.contains("nosuid"), "{root}");
}

fn kernel_interfaces_are_masked() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    for file in [
        "/proc/keys",
        "/proc/timer_list",
        "/proc/kcore",
        "/proc/sched_debug",
    ] {
        assert_eq!(
            sandbox.says(&format!("cat {file} 2>/dev/null | wc -c")),
            "0",
            "{file}"
        );
    }
    for directory in ["/proc/acpi", "/sys/firmware", "/proc/scsi"] {
        let script = format!("ls -A {directory} 2>/dev/null | wc -l");
        assert_eq!(sandbox.says(&script), "0", "{directory}");
        let script = format!("touch {directory}/x 2>/dev/null || echo refused");
        assert_eq!(sandbox.says(&script), "refused", "{directory}");
    }
}

fn kernel_interfaces_are_read_only() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    for file in [
        "/proc/sys/kernel/domainname",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/sys/kernel/profiling",
    ] {
        let output = run(sandbox.shell(&format!("test -e {file} || exit 5; : >> {file}"))).unwrap();
        let refused = output.stderr.contains("Read-only file system");
        assert!(
            refused || output.exit.outcome == Outcome::Exited(5),
            "{file}: {output:?}"
        );
    }
    // What belongs to a process stays its own.
    sandbox.says("echo 0 > /proc/self/oom_score_adj");
}

fn nothing_of_the_host_is_mounted() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounts = sandbox.says("cat /proc/self/mounts");
    let targets: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(targets[0], "/");
    let system = ["/", "/etc/hosts", "/etc/resolv.conf"];
    for target in &targets {
        let below = ["/dev", "/proc", "/sys"]
            .iter()
            .any(|top| target.starts_with(top));
        assert!(below || system.contains(target), "{mounts}");
    }
    let host = sandbox.temp.path().to_str().unwrap();
    let outside = mounts.lines().filter(|line| !line.starts_with("overlay "));
    for line in outside {
        assert!(!line.contains(host), "{line}");
    }
}

fn root_cannot_be_left() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let inside = sandbox.says("ls -di /");
    for line in sandbox.says("cd ../../../..; ls -di .; ls -di /..").lines() {
        assert_eq!(inode(line), inode(&inside));
    }
}

fn chroots_are_no_place_to_run() {
    if skipped() {
        return;
    }
    // A root that is a plain directory, with all that this program needs bound in it.
    let temp = tempfile::tempdir().unwrap();
    let script = "set -e; root=$1; program=$2
        for directory in lib lib64 usr bin proc dev sys tmp; do
            if [ -e /$directory ]; then
                mkdir -p $root/$directory; mount --rbind /$directory $root/$directory
            fi
        done
        touch $root/program; mount --bind $program $root/program
        exec chroot $root /program @run_here";
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(temp.path())
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said,
        "cannot run processes in a chroot whose root is no mount\n\
         hint: bind its directory onto itself (`mount --bind`) first\n",
        "{output:?}"
    );
}

/// Part: runs something and tells how it failed.
fn run_here() {
    let sandbox = Sandbox::new();
    match run(sandbox.shell("true")) {
        Ok(output) => println!("{output:?}"),
        Err(error) => println!("{error}"),
    }
}

fn inode(line: &str) -> &str {
    line.split_whitespace().next().unwrap()
}

fn no_network_but_loopback() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec =
        sandbox.shell("ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo up");
    spec.network = Network::None;
    let said = says(spec);
    assert!(said.starts_with("lo\n") && said.ends_with("\nup"), "{said}");
    let mut spec = sandbox.command(&["cat", "/proc/net/route"]);
    spec.network = Network::None;
    assert_eq!(says(spec).lines().count(), 1, "the heading only");
}

fn host_network_is_the_hosts() {
    if skipped() {
        return;
    }
    let host = fs_err::read_link("/proc/self/ns/net").unwrap();
    let sandbox = Sandbox::new();
    let said = sandbox.says("ls -l /proc/self/ns/net");
    assert!(said.ends_with(host.to_str().unwrap()), "{said}");
}

fn own_program_cannot_be_written() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    // As the interpreter of a script, `/proc/self/exe` is the program that executes it: larder.
    let script = sandbox.lower().join("bin/mirror");
    fs_err::write(&script, "#!/proc/self/exe @hold\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(&script, mode).unwrap();
    // A dynamic program does not start without its libraries, which is told as a missing file; a
    // static one would run as `@hold`. Either way the host's file must stay as it is.
    let before = fs_err::metadata(std::env::current_exe().unwrap()).unwrap();
    let outcome = run(sandbox.command(&["/bin/mirror"]));
    let after = fs_err::metadata(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert!(
        !matches!(&outcome, Ok(output) if output.exit.outcome == Outcome::Exited(0)),
        "{outcome:?}"
    );
}

fn cgroup_is_its_own() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let said = sandbox.says("grep '^0:' /proc/self/cgroup; ls -d /sys/fs/cgroup/cgroup.procs");
    assert_eq!(said, "0::/\n/sys/fs/cgroup/cgroup.procs");
    let output = run(sandbox.shell("echo 1 > /sys/fs/cgroup/cgroup.procs")).unwrap();
    assert!(
        output.stderr.contains("Read-only file system"),
        "{output:?}"
    );
}
