//! What a process may do with devices, and what one without confinement may do beside.

use larder_exec::{Device, DeviceKind, Security};

use crate::fixture::{Sandbox, run, says, skipped};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    (
        "other_devices_cannot_be_opened",
        other_devices_cannot_be_opened,
    ),
    ("devices_are_given_one_by_one", devices_are_given_one_by_one),
    ("insecure_processes_may_all", insecure_processes_may_all),
    (
        "insecure_users_have_capabilities",
        insecure_users_have_capabilities,
    ),
];

/// A device that everybody has, under numbers and a name of its own choice.
fn device(path: &str, (major, minor): (u32, u32)) -> Device {
    Device {
        path: path.to_owned(),
        host_path: "/dev/null".into(),
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o640,
        uid: 7,
        gid: 8,
        can_read: true,
        can_write: true,
    }
}

/// The number of `/dev/net/tun`, which anybody may open.
const TUN: (u32, u32) = (10, 200);

/// Returns whether this machine has it.
fn has_tun() -> bool {
    fs_err::File::open("/dev/net/tun").is_ok()
}

fn other_devices_cannot_be_opened() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let output = run(sandbox.shell("mknod /tmp/k c 10 200; exec 3< /tmp/k && echo open")).unwrap();
    assert_eq!(output.stdout, "", "{output:?}");
    assert!(
        output.stderr.contains("Operation not permitted"),
        "{output:?}"
    );
    // Nodes of what everybody may use are everybody's to make.
    sandbox.says("mknod /tmp/n c 1 3; echo x > /tmp/n; mknod /dev/z c 1 5; head -c 1 /dev/z");
}

fn devices_are_given_one_by_one() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell(
        "stat -c '%a %u %g %t:%T' /dev/sub/tun; test -c /outside/null; echo x > /outside/null",
    );
    spec.devices = vec![device("/dev/sub/tun", TUN), device("/outside/null", (1, 3))];
    assert_eq!(says(spec), "640 7 8 a:c8");
    assert!(!sandbox.changes().contains(&"outside".to_owned()));

    if !has_tun() {
        println!("skipped: no `/dev/net/tun`");
        return;
    }
    let open = |device: Device, script: &str| {
        let mut spec = sandbox.shell(script);
        spec.devices = vec![device];
        run(spec).unwrap()
    };
    let (reading, writing) = (
        "exec 3< /dev/t && echo open",
        "exec 3<> /dev/t && echo open",
    );
    let output = open(device("/dev/t", TUN), writing);
    assert_eq!(output.stdout, "open\n", "{output:?}");
    let readonly = Device {
        can_write: false,
        ..device("/dev/t", TUN)
    };
    let output = open(readonly.clone(), reading);
    assert_eq!(output.stdout, "open\n", "{output:?}");
    let output = open(readonly, writing);
    assert!(
        output.stderr.contains("Operation not permitted"),
        "{output:?}"
    );
}

fn insecure_processes_may_all() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell(
        "set -e
         grep -E '^(CapEff|CapBnd|CapAmb|Seccomp:)' /proc/self/status | tr '\\t' ' '
         mkdir /tmp/m; mount -t tmpfs none /tmp/m; mknod /tmp/k c 1 11; exec 3< /tmp/k
         test -c /dev/kmsg; test -b /dev/loop7; test -c /dev/net/tun; test -c /dev/fuse
         grep ' /sys sysfs rw' /proc/self/mounts > /dev/null
         head -c 1 /proc/timer_list > /dev/null; echo 1 > /proc/sys/kernel/printk_ratelimit_burst_x \
         2>/dev/null || echo end",
    );
    spec.security = Security::Insecure;
    let all = fs_err::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("CapPrm:\t"));
    let all = all.unwrap();
    assert_eq!(
        says(spec),
        format!("CapEff: {all}\nCapBnd: {all}\nCapAmb: {all}\nSeccomp: 0\nend")
    );
    // The next one is confined again.
    let status = says(sandbox.command(&["grep", "CapBnd", "/proc/self/status"]));
    assert_eq!(status, "CapBnd:\t00000000a80425fb");
}

fn insecure_users_have_capabilities() {
    if skipped() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("id -u; mkdir /tmp/m; mount -t tmpfs none /tmp/m && echo mounted");
    spec.security = Security::Insecure;
    spec.user.uid = 1000;
    assert_eq!(says(spec), "1000\nmounted");
}
