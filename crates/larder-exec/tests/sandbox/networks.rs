//! Networks of their own.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use larder_exec::network::{Helper, Networks};
use larder_exec::{DnsConfig, Network, ProcessSpec, Security, resolv_conf};

use crate::fixture::{Sandbox, run, says, skipped};
use crate::runner::Case;

pub const CASES: &[Case] = &[
    ("own_networks_reach_outside", own_networks_reach_outside),
    ("helpers_that_fail_say_why", helpers_that_fail_say_why),
];

pub const PARTS: &[Case] = &[("@refused", refused)];

/// Shows which network namespace it is, and its interfaces.
const LOOK: &str = "stat -L -c %i /proc/self/ns/net; ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 \
                    > /dev/null && echo up";

fn look(sandbox: &Sandbox, network: Network) -> (String, Vec<String>) {
    let spec = ProcessSpec {
        network,
        ..sandbox.shell(LOOK)
    };
    let said = says(spec);
    let mut lines = said.lines().map(str::to_owned);
    (lines.next().unwrap(), lines.collect())
}

fn own_networks_reach_outside() {
    if skipped() {
        return;
    }
    let mut tried = 0;
    for helper in Helper::ALL {
        let Ok(networks) = Networks::new(helper) else {
            continue;
        };
        match networks.acquire(false) {
            Ok(own) => drop(own),
            Err(error) => {
                println!("skipped: {error}");
                continue;
            }
        }
        check(&networks);
        tried += 1;
    }
    larder_exec::shutdown();
    if tried == 0 {
        println!("skipped: neither `pasta` nor `slirp4netns` serves here");
    }
}

fn check(networks: &Networks) {
    let sandbox = Sandbox::new();
    let acquire = || networks.acquire(false).unwrap();
    // One after the other, they are the same; at once, they are not.
    let (first, interfaces) = look(&sandbox, Network::Own(acquire()));
    assert_eq!(interfaces.last().unwrap(), "up", "{interfaces:?}");
    assert_eq!(interfaces.len(), 3, "loopback and one more: {interfaces:?}");
    let (second, other) = (acquire(), acquire());
    assert_eq!(look(&sandbox, Network::Own(second)).0, first);
    assert_ne!(look(&sandbox, Network::Own(other)).0, first);
    // What may have been tampered with is nobody else's.
    let taken = [acquire(), acquire()];
    for own in taken {
        let spec = ProcessSpec {
            security: Security::Insecure,
            network: Network::Own(own),
            ..sandbox.shell("true")
        };
        says(spec);
    }
    assert_ne!(look(&sandbox, Network::Own(acquire())).0, first);

    // A server of the host.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = |network, address: &str| {
        let spec = ProcessSpec {
            network,
            ..sandbox.shell(&format!("echo hi | busybox nc -w 2 {address} {port}"))
        };
        run(spec).unwrap()
    };
    let output = connect(Network::Own(acquire()), "127.0.0.1");
    assert!(output.stderr.contains("refused"), "{output:?}");
    let own = networks.acquire(true).unwrap();
    let gateway = own.host_gateway().map(str::to_owned);
    let text = resolv_conf(&Network::Own(own), &DnsConfig::default());
    assert_eq!(text.matches("nameserver").count(), 1, "{text}");
    let Some(gateway) = gateway else { return };
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
    });
    let output = connect(Network::Own(networks.acquire(true).unwrap()), &gateway);
    assert_eq!(output.stdout, "hello", "{output:?}");
    answering.join().unwrap();
}

fn helpers_that_fail_say_why() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = |name: &str, script: &str| {
        let path = directory.path().join(name);
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(&path, mode).unwrap();
    };
    program("pasta", "echo first >&2; echo 'no way out' >&2; exit 1");
    program("slirp4netns", "exit 3");
    let part = Command::new(std::env::current_exe().unwrap())
        .arg("@refused")
        .env("PATH", format!("{}:/bin", directory.path().display()))
        .output()
        .unwrap();
    assert!(part.status.success(), "{part:?}");
}

/// Part.
fn refused() {
    for (helper, expected) in [
        (Helper::Pasta, "`pasta`: no way out"),
        (Helper::Slirp4netns, "`slirp4netns` failed"),
    ] {
        let networks = Networks::new(helper).unwrap();
        assert_eq!(networks.acquire(false).unwrap_err().to_string(), expected);
    }
    let helper = Helper::Pasta.find().unwrap();
    fs_err::write(&helper, "no program").unwrap();
    let error = Networks::new(Helper::Pasta).unwrap().acquire(true);
    let message = error.unwrap_err().to_string();
    assert!(message.starts_with("exec /"), "{message}");
    fs_err::remove_file(&helper).unwrap();
    assert!(!Path::new(&helper).exists());
    let missing = Networks::new(Helper::Pasta).unwrap_err().to_string();
    assert_eq!(missing, "`pasta` is not installed");
}
