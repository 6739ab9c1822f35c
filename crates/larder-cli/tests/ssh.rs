//! SSH agents and keys: in steps, and for sources that are reached by SSH.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fs_err as fs;
use larder_testkit::{Base, GitRepository, Larder, Project, project, skip};

/// Asks the agent which keys it has, and tries what it must not do. Prints the comments of the keys
/// and the types of the answers.
const ASK: &str = r#"
import os, socket, struct
def ask(message):
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["SSH_AUTH_SOCK"])
    s.sendall(struct.pack(">I", len(message)) + message)
    def read(n):
        data = b""
        while len(data) < n:
            data += s.recv(n - len(data))
        return data
    return read(struct.unpack(">I", read(4))[0])
def strings(data):
    while data:
        n = struct.unpack(">I", data[:4])[0]
        yield data[4:4 + n]
        data = data[4 + n:]
def string(data):
    return struct.pack(">I", len(data)) + data
listed = ask(b"\x0b")
keys = list(strings(listed[5:]))
print("keys", b" ".join(keys[1::2]).decode())
for key in keys[::2]:
    print("signed", ask(b"\x0d" + string(key) + string(b"data") + struct.pack(">I", 2))[0])
print("removed", ask(b"\x13")[0], "locked", ask(b"\x16" + string(b"x"))[0])
"#;

/// Makes a key; its comment is its name.
fn key(directory: &Path, name: &str, kind: &str) -> PathBuf {
    let path = directory.join(name);
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-N", "", "-C", name, "-t", kind, "-f"])
        .arg(&path);
    assert!(command.status().unwrap().success());
    path
}

/// Ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an agent that has a key.
fn agent(directory: &Path, key: &Path) -> (Process, PathBuf) {
    let socket = directory.join("agent");
    let mut command = Command::new("ssh-agent");
    let command = command
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null());
    let process = Process(command.spawn().unwrap());
    let mut waited = 0;
    while !socket.exists() {
        waited += 1;
        assert!(waited < 1000, "ssh-agent does not start");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut add = Command::new("ssh-add");
    let add = add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().unwrap().success());
    (process, socket)
}

fn build(project: &Project, larder: &Larder, steps: &str, flags: &[&str]) -> larder_testkit::Run {
    let dockerfile = format!("FROM python:3.11-slim\nCOPY ask.py /\n{steps}\n");
    project.write(&[("Dockerfile", &dockerfile), ("ask.py", ASK)]);
    let args = ["build", "--progress=plain"].into_iter();
    let context = project.context();
    larder.run(args.chain(flags.iter().copied()).chain(context.to_str()))
}

#[test]
fn steps_list_and_sign_and_do_nothing_else() {
    let project = project!(Base::Python);
    if let Err(error) = larder_testkit::install(&["openssh-client"]) {
        skip!("{error:#}");
    }
    let directory = project.scratch().join("keys");
    fs::create_dir(&directory).unwrap();
    let (one, two) = (
        key(&directory, "one", "ed25519"),
        key(&directory, "two", "rsa"),
    );
    let (_agent, socket) = agent(&directory, &one);
    let larder = project.larder();
    let with_agent = larder.clone().with_env("SSH_AUTH_SOCK", &socket);
    let ask = "RUN --mount=type=ssh python3 /ask.py";

    let run = build(&project, &with_agent, ask, &["--ssh", "default"]).success();
    let run = run
        .says("keys one")
        .says("signed 14")
        .says("removed 5 locked 5");
    assert!(!run.stderr.contains("one two"), "{}", run.stderr);
    let still = Command::new("ssh-add")
        .arg("-l")
        .env("SSH_AUTH_SOCK", &socket)
        .output();
    assert!(
        still.unwrap().status.success(),
        "the agent has its key no more"
    );

    // The same step with other keys is the same step.
    let other = format!("--ssh=default={}", two.display());
    let cached = build(&project, larder, ask, &[&other]).success();
    assert!(cached.cached_count() >= 2, "{}", cached.stderr);
    let both = format!("--ssh=k={},{}", one.display(), two.display());
    let steps = "RUN --mount=type=ssh,id=k,target=/s,mode=0666,uid=7 --mount=type=ssh,id=k \
                 stat -c 'socket %a %u %F' /s && test \"$SSH_AUTH_SOCK\" = /s && python3 /ask.py && \
                 test -S /run/buildkit/ssh_agent.1\nRUN ! test -e /s && ! test -e /run/buildkit";
    let run = build(&project, larder, steps, &[&both]).success();
    let run = run.says("socket 666 7 socket").says("keys one two");
    assert_eq!(run.stderr.matches("signed 14").count(), 2, "{}", run.stderr);
}

#[test]
fn agents_that_are_missing_matter_where_they_are_required() {
    let project = project!(Base::Python);
    let larder = project.larder();
    let optional = "RUN --mount=type=ssh test \"$SSH_AUTH_SOCK\" = /run/buildkit/ssh_agent.0 && \
                    ! test -e $SSH_AUTH_SOCK";
    let _ = build(&project, larder, optional, &[]).success();
    let required = "RUN --mount=type=ssh,id=k,required true";
    let _ = build(&project, larder, required, &[])
        .exit(1)
        .says("no SSH key \"k\" forwarded from the client")
        .says("hint: lend an agent or a key: `--ssh k`")
        .says("Dockerfile:3");
    let _ = build(&project, larder, "", &["--ssh", "default"])
        .exit(1)
        .says("make sure SSH_AUTH_SOCK is set");
}

#[test]
fn bake_and_compose_lend_agents_too() {
    let project = project!(Base::Python);
    if let Err(error) = larder_testkit::install(&["openssh-client"]) {
        skip!("{error:#}");
    }
    let directory = project.context();
    let _ = key(&directory, "one", "ed25519");
    project.write(&[
        (
            "Dockerfile",
            "FROM python:3.11-slim\nCOPY ask.py /\nRUN --mount=type=ssh,id=k,required python3 /ask.py\n",
        ),
        (".dockerignore", "one*"),
        ("ask.py", ASK),
        (
            "docker-bake.hcl",
            "target \"default\" { ssh = [{id = \"k\", paths = [\"one\"]}] }",
        ),
        (
            "compose.yaml",
            "services:\n  a:\n    build:\n      context: .\n      ssh: [k=one]\n",
        ),
    ]);
    let run = |args: &[&str]| {
        let mut command = project.larder().command(args.iter().copied());
        larder_testkit::Run::of(command.current_dir(&directory))
    };
    let bake = ["bake", "--progress=plain", "--no-cache", "--allow=ssh"];
    let _ = run(&bake).success().says("keys one");
    let compose = ["compose", "--progress=plain", "build", "--no-cache"];
    let _ = run(&compose).success().says("keys one");
}

/// A server for root that lets one key in.
struct Sshd {
    _process: Process,
    port: u16,
}

impl Sshd {
    fn start(directory: &Path, key: &Path) -> anyhow::Result<Self> {
        larder_testkit::install(&["openssh-server", "openssh-client", "git"])?;
        fs::create_dir_all("/run/sshd")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let host_key = self::key(directory, "host", "ed25519");
        let config = directory.join("sshd_config");
        fs::write(
            &config,
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
                 StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n\
                 PermitRootLogin prohibit-password\n",
                host_key.display(),
                key.with_extension("pub").display(),
            ),
        )?;
        let mut command = Command::new("/usr/sbin/sshd");
        let command = command.arg("-D").arg("-e").arg("-f").arg(&config);
        let process = Process(command.stderr(Stdio::null()).spawn()?);
        for _ in 0..1000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(Self {
                    _process: process,
                    port,
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        anyhow::bail!("sshd does not start")
    }
}

#[test]
fn repositories_are_fetched_by_ssh() {
    let project = project!(Base::Busybox);
    let directory = project.scratch().join("keys");
    fs::create_dir(&directory).unwrap();
    let allowed = key(&directory, "allowed", "ed25519");
    let stranger = key(&directory, "stranger", "ed25519");
    let sshd = match Sshd::start(&directory, &allowed) {
        Ok(sshd) => sshd,
        Err(error) => skip!("{error:#}"),
    };
    let repository = GitRepository::create(&project.scratch().join("a"));
    repository.commit(&[("f", "by ssh\n")]);
    let path = repository.path().display();
    let url = format!("ssh://root@127.0.0.1:{}{path}", sshd.port);
    project.write(&[(
        "Dockerfile",
        &format!("FROM busybox\nADD {url} /\nRUN cat /f\n"),
    )]);
    let _ = project
        .build(&[])
        .exit(1)
        .says("no SSH key \"default\" forwarded from the client");
    let wrong = format!("--ssh=default={}", stranger.display());
    let _ = project
        .build(&[&wrong])
        .exit(1)
        .says("Permission denied")
        .says("hint: lend an agent or a key that the server knows");
    let right = format!("--ssh=default={}", allowed.display());
    let _ = project.build(&[&right]).success().says("by ssh");
    let (_agent, socket) = agent(&directory, &allowed);
    let larder = project.larder().clone().with_env("SSH_AUTH_SOCK", &socket);
    repository.commit(&[("f", "by an agent\n")]);
    let context = project.context();
    let args = [
        "build",
        "--progress=plain",
        "--ssh=default",
        context.to_str().unwrap(),
    ];
    let _ = larder.run(args).success().says("by an agent");

    // A context that is such a repository has the agent without a flag.
    repository.commit(&[("Dockerfile", "FROM busybox\nCOPY f /\nRUN cat /f\n")]);
    let run = larder.run(["build", "--progress=plain", &url]).success();
    let _ = run.says("by an agent");
}
