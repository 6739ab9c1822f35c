//! `larder compose up` and what belongs to it: services that run, with real containers.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use larder_testkit::{Base, Larder, Project, Run, Scratch, User, processes_left, skip};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A project whose services are ended with the test.
struct Services(Project);

impl Services {
    fn new(file: &str) -> anyhow::Result<Self> {
        Self::on(Base::Busybox, file)
    }

    fn on(base: Base, file: &str) -> anyhow::Result<Self> {
        let project = Project::new(env!("CARGO_BIN_EXE_larder"), base)?;
        project.write(&[("compose.yaml", file)]);
        Ok(Self(project))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.larder().command(["compose", "-p", "p"]);
        command.args(args).current_dir(self.0.context());
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }

    /// Starts a command that goes on, with its output going to files.
    fn spawn(&self, args: &[&str]) -> Running<'_> {
        let out = fs::File::create(self.0.scratch().join("out")).unwrap();
        let err = fs::File::create(self.0.scratch().join("err")).unwrap();
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stdout(out.into_file())
            .stderr(err.into_file());
        Running {
            services: self,
            child: command.spawn().unwrap(),
        }
    }

    fn logs(&self) -> String {
        self.run(&["logs", "--no-log-prefix"]).success().text()
    }

    /// Returns the states of all services: `a:running b:exited`.
    fn states(&self) -> String {
        let format = "{{.Service}}:{{.State}}:{{.ExitCode}}:{{.Health}}";
        let text = self.run(&["ps", "-a", "--format", format]).success().text();
        text.lines().collect::<Vec<_>>().join(" ")
    }

    /// Waits until the logs hold `text`.
    fn await_log(&self, text: &str) {
        until(text, || self.logs().contains(text));
    }

    /// Returns the processes that have the project's state directory in their arguments.
    fn supervisors(&self) -> Vec<u32> {
        let mark = self.0.larder().root().join("compose");
        processes_left(mark.to_str().unwrap(), Duration::ZERO)
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let down = self.run(&["down", "-v", "--remove-orphans"]);
        let left = self.supervisors();
        // Whatever went wrong: nothing of the test goes on.
        for pid in &left {
            kill("KILL", *pid);
        }
        if !std::thread::panicking() {
            assert_eq!(down.code, Some(0), "{}", down.stderr);
            assert!(left.is_empty(), "left: {left:?}");
        }
    }
}

/// A command in the foreground.
struct Running<'a> {
    services: &'a Services,
    child: Child,
}

impl Running<'_> {
    fn output(&self) -> String {
        fs::read_to_string(self.services.0.scratch().join("out")).unwrap()
    }

    fn await_output(&self, text: &str) {
        until(text, || self.output().contains(text));
    }

    fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    /// Waits for the end; returns the exit code.
    fn wait(mut self) -> i32 {
        let mut status = None;
        until("the end of the command", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap()
    }
}

fn kill(signal: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits until `is_so`, and fails after a time that is long enough.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

macro_rules! services {
    ($file:expr) => {
        match Services::new($file) {
            Ok(services) => services,
            Err(error) => skip!("{error:#}"),
        }
    };
}

#[test]
fn a_development_loop() {
    let services = services!(
        r"
services:
  api:
    build:
      dockerfile_inline: |
        FROM busybox
        RUN mkdir -p /app/.venv /data && echo from-image > /app/.venv/x && echo seed > /data/seed
        WORKDIR /app
    command: sh -c 'cat .venv/x /data/seed; echo $$GREETING; while :; do cat file; sleep 0.1; done'
    environment: {GREETING: hello}
    volumes: [./app:/app, /app/.venv, data:/data]
    stop_grace_period: 0s
  idle: {image: busybox, command: [sleep, '1000'], stop_grace_period: 0s}
volumes: {data: }
"
    );
    services.0.write(&[("app/file", "one\n")]);
    let up = services.run(&["up", "-d"]).success();
    let up = up
        .says(" Image p-api Built ")
        .says(" Container p-api-1 Started ");
    let _ = up.says(" Container p-idle-1 Started ");
    for text in ["from-image", "seed", "hello", "one"] {
        services.await_log(text);
    }
    // An edit is seen inside at once, without a restart.
    fs::write(services.0.context().join("app/file"), "two\n").unwrap();
    services.await_log("two");
    // What is written to the volume outlives the container; the image's content comes only once.
    let wrote = services.run(&[
        "run",
        "--no-deps",
        "api",
        "sh",
        "-c",
        "echo kept > /data/kept; rm /data/seed",
    ]);
    let _ = wrote.success();
    let pids = services.supervisors();
    assert_eq!(pids.len(), 2);

    // Nothing changed: nothing restarts, also with a build.
    let again = services.run(&["up", "-d", "--build"]).success();
    let _ = again
        .says(" Container p-api-1 Running ")
        .says(" Container p-idle-1 Running ");
    assert_eq!(services.supervisors(), pids);

    // One service changed: only that one is made anew.
    let file = fs::read_to_string(services.0.context().join("compose.yaml")).unwrap();
    services
        .0
        .write(&[("compose.yaml", &file.replace("hello", "goodbye"))]);
    let changed = services.run(&["up", "-d"]).success();
    let _ = changed
        .says(" Container p-api-1 Recreated ")
        .says(" Container p-idle-1 Running ");
    services.await_log("goodbye");
    assert!(!services.logs().contains("seed\n"), "{}", services.logs());
    let kept = services
        .run(&["run", "--no-deps", "api", "cat", "/data/kept"])
        .success();
    assert_eq!(kept.text(), "kept");

    let ps = services.run(&["ps"]).success().text();
    assert!(
        ps.starts_with("NAME") && ps.contains("p-api-1") && ps.contains("Up "),
        "{ps}"
    );
    let _ = services.run(&["stop", "idle"]).success();
    assert!(
        services.states().contains("idle:exited:137:"),
        "{}",
        services.states()
    );
    assert_eq!(services.run(&["ps", "--services"]).text(), "api");
    let _ = services.run(&["start", "idle"]).success();
    assert!(
        services.states().contains("idle:running:"),
        "{}",
        services.states()
    );

    let down = services.run(&["down"]).success();
    let _ = down.says(" Container p-api-1 Removed ");
    assert_eq!(services.states(), "");
    let kept = services
        .run(&["run", "--no-deps", "api", "cat", "/data/kept"])
        .success();
    assert_eq!(kept.text(), "kept");
    let _ = services
        .run(&["down", "-v"])
        .success()
        .says(" Volume p_data Removed ");
    let fresh = services
        .run(&["run", "--no-deps", "api", "ls", "/data"])
        .success();
    assert_eq!(fresh.text(), "seed");

    // The image that the file gives no name goes, the other one stays.
    let down = services.run(&["down", "--rmi", "local"]).success();
    let _ = down.says(" Image p-api Removed ");
    let again = services.run(&["down", "--rmi", "all", "idle", "api"]);
    let _ = again
        .success()
        .says(" Image busybox Removed ")
        .says(" Image p-api Warning: No resource found to remove ");
}

#[test]
fn what_services_write_is_shown_until_ctrl_c() {
    let services = services!(
        r#"
services:
  api:
    image: busybox
    command: ["sh", "-c", "trap 'echo stopping; exit 0' TERM; echo api runs; while :; do sleep 0.05; done"]
    depends_on: [db]
  db:
    image: busybox
    command: ["sh", "-c", "trap 'echo db stops; exit 0' TERM; echo db runs; while :; do sleep 0.05; done"]
"#
    );
    let up = services.spawn(&["up"]);
    up.await_output("api-1  | api runs\n");
    up.await_output("db-1   | db runs\n");
    up.signal("INT");
    let output = || fs::read_to_string(services.0.scratch().join("out")).unwrap();
    assert_eq!(up.wait(), 130, "{}", output());
    let output = output();
    let stopping = output.find("api-1  | stopping").unwrap();
    assert!(
        stopping < output.find("db-1   | db stops").unwrap(),
        "{output}"
    );
    assert_eq!(services.states(), "api:exited:0: db:exited:0:");
    assert!(services.supervisors().is_empty());
}

#[test]
fn a_second_ctrl_c_kills() {
    let services = services!(
        r#"
services:
  stubborn:
    image: busybox
    command: ["sh", "-c", "trap '' TERM; echo runs; while :; do sleep 0.05; done"]
    stop_grace_period: 10m
"#
    );
    let _ = services.run(&["up", "-d"]).success();
    let _ = services.run(&["stop", "-t", "0"]).success();
    assert!(
        services.states().contains("stubborn:exited:137"),
        "{}",
        services.states()
    );
    let up = services.spawn(&["up"]);
    up.await_output("runs");
    up.signal("INT");
    let err = || fs::read_to_string(services.0.scratch().join("err")).unwrap();
    until("stopping", || err().contains("Stopping"));
    up.signal("INT");
    assert_eq!(up.wait(), 130);
    assert!(
        services.states().contains("stubborn:exited:137"),
        "{}",
        services.states()
    );
}

#[test]
fn services_are_found_after_the_command_was_killed() {
    let services = services!(
        "services: {a: {image: busybox, command: sh -c 'echo runs; sleep 1000', stop_grace_period: 0s}}"
    );
    let mut up = services.spawn(&["up"]);
    up.await_output("a-1  | runs");
    up.signal("KILL");
    let _ = up.child.wait().unwrap();
    assert_eq!(services.states(), "a:running:0:");
    let follow = services.spawn(&["logs", "-f", "-n", "1"]);
    follow.await_output("a-1  | runs");
    let _ = services
        .run(&["up", "-d"])
        .success()
        .says(" Container p-a-1 Running ");
    let _ = services
        .run(&["down"])
        .success()
        .says(" Container p-a-1 Removed ");
    assert_eq!(follow.wait(), 0);
    assert!(services.supervisors().is_empty());
}

#[test]
fn services_wait_for_those_they_need() {
    let services = services!(
        r"
services:
  api:
    image: busybox
    command: cat /shared/migrated /shared/ready
    volumes: [shared:/shared]
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
  db:
    image: busybox
    command: sh -c 'sleep 0.5; echo ready > /shared/ready; sleep 1000'
    volumes: [shared:/shared]
    stop_grace_period: 0s
    healthcheck: {test: test -f /shared/ready, interval: 100ms, retries: 100}
  migrate:
    image: busybox
    command: sh -c 'sleep 0.5; echo migrated > /shared/migrated'
    volumes: [shared:/shared]
volumes: {shared: }
"
    );
    let up = services.run(&["up", "--exit-code-from", "api"]).success();
    assert!(up.text().contains("migrated\n"), "{}", up.text());
    let _ = up
        .says(" Container p-db-1 Healthy ")
        .says("Aborting on container exit");
}

#[test]
fn a_needed_service_that_fails_ends_all() {
    let services = services!(
        r"
services:
  api: {image: busybox, command: [echo, never], depends_on: {db: {condition: service_healthy}}}
  late: {image: busybox, command: [echo, never], depends_on: {once: {condition: service_completed_successfully}}}
  blind: {image: busybox, command: [echo, never], depends_on: {other: {condition: service_healthy}}}
  db:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    healthcheck: {test: [CMD, 'false'], interval: 50ms, retries: 2}
  once: {image: busybox, command: sh -c 'exit 4'}
  other: {image: busybox, command: sleep 1000, stop_grace_period: 0s}
"
    );
    for (service, expect) in [
        ("api", "container p-db-1 is unhealthy"),
        (
            "late",
            "service \"once\" didn't complete successfully: exit 4",
        ),
        ("blind", "container p-other-1 has no healthcheck configured"),
    ] {
        let failed = services.run(&["up", service]).exit(1).says(expect);
        assert!(!failed.text().contains("never"));
    }
    assert!(
        !services.states().contains("running"),
        "{}",
        services.states()
    );
}

#[test]
fn a_command_that_can_t_be_run_is_told() {
    let services = services!("services: {a: {image: busybox, command: [no-such-program]}}");
    let detached = services.run(&["up", "-d"]).exit(1);
    let _ = detached.says("no-such-program");
    assert!(
        services.states().contains("a:exited:127"),
        "{}",
        services.states()
    );
}

#[test]
fn services_restart_by_their_policy() {
    let services = services!(
        r"
services:
  flaky:
    image: busybox
    command: sh -c 'echo try >> /tries; cat /tries; exit 5'
    restart: on-failure:2
"
    );
    let up = services.run(&["up"]).success();
    let tries = up.text().matches("try").count();
    // One, two and three lines: the container's files stay.
    assert_eq!(tries, 6, "{}", up.text());
    assert!(up.text().contains("flaky-1 exited with code 5"));
}

#[test]
fn a_container_dies_with_its_supervisor_and_is_found() {
    let services = services!(
        r#"
services:
  a:
    image: busybox
    command: ["sh", "-c", "trap '' TERM; while :; do date +%s%N > /shared/alive; sleep 0.02; done"]
    volumes: [./shared:/shared]
"#
    );
    let _ = services.run(&["up", "-d"]).success();
    let alive = services.0.context().join("shared/alive");
    until("a sign of life", || alive.exists());
    let supervisors = services.supervisors();
    let [pid] = supervisors[..] else {
        panic!("{supervisors:?}")
    };
    kill("KILL", pid);
    until("the end of the service", || {
        services.states() == "a:exited:137:"
    });
    // Whoever would write the file again is gone.
    until("silence", || {
        let _ = fs::remove_file(&alive);
        std::thread::sleep(Duration::from_millis(200));
        !alive.exists()
    });
    let up = services.run(&["up", "-d"]).success();
    let _ = up.says(" Container p-a-1 Started ");
    until("a sign of life", || alive.exists());
    let _ = services.run(&["restart"]).success();
    assert_eq!(services.states(), "a:running:0:");
    kill("KILL", services.supervisors()[0]);
}

#[test]
fn secrets_and_configs_are_files() {
    let services = services!(
        r"
services:
  a:
    image: busybox
    command: cat /run/secrets/tok /run/secrets/file /etc/app.conf
    secrets: [tok, {source: other, target: file, mode: 0400}]
    configs: [{source: conf, target: /etc/app.conf}]
secrets: {tok: {environment: TOKEN}, other: {file: ./secret}}
configs: {conf: {content: 'level: $LEVEL'}}
"
    );
    services.0.write(&[("secret", "from file\n")]);
    let mut up = services.command(&["up", "--no-log-prefix"]);
    let up = Run::of(up.env("TOKEN", "from env\n").env("LEVEL", "debug")).success();
    let text = up.text();
    assert!(text.contains("from env\nfrom file\nlevel: debug"), "{text}");
    // The secret itself is nowhere in the state directory.
    let found = Command::new("grep")
        .args(["-rl", "from env"])
        .arg(services.0.larder().root())
        .output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    assert!(found.lines().all(|path| path.ends_with("/log")), "{found}");
}

#[test]
fn what_has_no_effect_is_told() {
    let services = services!(
        "services:\n  a:\n    image: busybox\n    command: 'true'\n    privileged: true\n    ports: ['8080:80', '90:90']\n"
    );
    let up = services.run(&["up"]).success();
    let up = up.says("compose.yaml:5: services.a.privileged has no effect");
    let up = up.says("compose.yaml:6: services.a.ports: services share the host's network: port 80 of the container is port 80 of the host, not 8080");
    assert!(!up.stderr.contains("90 of the"), "{}", up.stderr);
    services.0.write(&[(
        "compose.yaml",
        "services:\n  a:\n    image: busybox\n    scale: 2\n",
    )]);
    let _ = services
        .run(&["up"])
        .exit(1)
        .says("compose.yaml:4: services.a.scale: only one container");
    services.0.write(&[(
        "compose.yaml",
        "services: {a: {image: busybox, command: 'true'}}",
    )]);
    let _ = services
        .run(&["exec", "a", "sh"])
        .exit(1)
        .says("`compose exec` is not supported yet");
}

#[test]
fn services_find_each_other_by_name() {
    let services = services!(
        r"
services:
  web: {image: busybox, command: [cat, /etc/hosts], extra_hosts: ['other:10.0.0.7'], hostname: me}
  db: {image: busybox, command: 'true'}
"
    );
    let up = services.run(&["up", "--no-log-prefix", "web"]).success();
    for line in ["127.0.0.1\tdb", "127.0.0.1\tweb", "10.0.0.7\tother"] {
        assert!(up.text().contains(line), "{}", up.text());
    }
    // A removed service is told of, and removed if asked to.
    services.0.write(&[(
        "compose.yaml",
        "services: {db: {image: busybox, command: 'true'}}",
    )]);
    let _ = services
        .run(&["up"])
        .success()
        .says("Found orphan containers ([web])");
    let _ = services
        .run(&["up", "--remove-orphans"])
        .success()
        .says("p-web-1 Removed");
}

/// Copies a directory.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

#[test]
fn the_example_serves() {
    // Another port than the example's own, which may be taken here.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let file = format!(
        "services:\n  api:\n    command: [python, -m, smartdiet, api, --port, '{port}']\n    ports: !override ['{port}:{port}']\n    healthcheck: {{test: [CMD, python, -c, 'import urllib.request as u; u.urlopen(\"http://api:{port}/health\")'], interval: 200ms, retries: 100}}\n  worker:\n    stop_grace_period: 0s\n"
    );
    let services = match Services::on(Base::Python, &file) {
        Ok(services) => services,
        Err(error) => skip!("{error:#}"),
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/smartdiet/.");
    copy(&example, &services.0.context());
    let own = services.0.context().join("compose.yaml");
    fs::rename(
        &own,
        services.0.context().join("docker-compose.override.yml"),
    )
    .unwrap();
    let run = |args: &[&str]| services.run(args);
    let up = run(&["up", "-d", "--wait", "--build", "--host-ca"]).success();
    let installed = up.steps();
    let installed = installed
        .iter()
        .filter(|step| step.name.contains("pip install"));
    assert_eq!(installed.count(), 1, "{}", up.stderr);
    let health = larder_testkit::request(&format!("127.0.0.1:{port}"), "GET", "/health", &[], b"");
    let health = String::from_utf8(health.unwrap().body).unwrap();
    assert!(health.contains("\"status\":\"ok\""), "{health}");
    assert!(
        services.states().contains("api:running:0:healthy"),
        "{}",
        services.states()
    );
    let unchanged = run(&["up", "-d", "--build", "--host-ca"]).success();
    let _ = unchanged
        .says(" Container p-api-1 Running ")
        .says(" Container p-worker-1 Running ");
    let checked = run(&[
        "run",
        "--no-deps",
        "api",
        "python",
        "-m",
        "smartdiet",
        "selfcheck",
    ]);
    assert!(checked.success().text().contains("smartdiet: ok"));
}

#[test]
fn ordinary_users_have_services_too() {
    for user in [
        User::with_subordinate_ids(),
        User::without_subordinate_ids(),
    ] {
        let (user, archive) = match user.and_then(|user| Ok((user, Base::Busybox.archive()?))) {
            Ok(found) => found,
            Err(error) => skip!("no ordinary user: {error:#}"),
        };
        let scratch = Scratch::owned_by(&user);
        let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch).as_user(user, &scratch);
        let mut import = larder.command(["import", "-", "busybox"]);
        let archive = fs::File::open(archive).unwrap().into_file();
        let _ = Run::of(import.stdin(Stdio::from(archive))).success();
        let file = r"
services:
  a: {image: busybox, command: sh -c 'cat /v/greeting', volumes: ['v:/v'], depends_on: {b: {condition: service_healthy}}}
  b:
    image: busybox
    command: sh -c 'echo hello > /v/greeting; sleep 1000'
    volumes: ['v:/v']
    stop_grace_period: 0s
    healthcheck: {test: test -f /v/greeting, interval: 100ms, retries: 50}
volumes: {v: }
";
        let context = scratch.context("context", &[("compose.yaml", file)]);
        let compose = |args: &[&str]| {
            let mut command = larder.command(["compose"]);
            Run::of(command.args(args).current_dir(&context))
        };
        let up = compose(&["up", "--exit-code-from", "a"]).success();
        assert!(up.text().contains("a-1  | hello"), "{}", up.text());
        let _ = compose(&["up", "-d", "b"]).success();
        let _ = compose(&["restart", "b"]).success();
        assert!(compose(&["ps"]).success().text().contains("(health"));
        let _ = compose(&["down", "-v"])
            .success()
            .says(" Volume context_v Removed ");
        let left = processes_left(scratch.root().to_str().unwrap(), Duration::ZERO);
        assert!(left.is_empty(), "{left:?}");
    }
}
