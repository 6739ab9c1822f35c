//! Called as Docker's programs: the command lines that people type, with nothing but larder's
//! links in `PATH`.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use larder_testkit::{Base, Project, Registry, Run, project, skip};

/// A project with the links, and with what runs lines by them.
struct Desk {
    project: Project,
}

impl Desk {
    fn new(project: Project) -> Self {
        let desk = Self { project };
        let directory = desk.directory();
        let larder = desk.project.larder();
        let _ = larder.run(["shim", "install", &directory]).success();
        desk
    }

    fn directory(&self) -> String {
        let path = self.project.scratch().join("bin");
        path.to_str().unwrap().to_owned()
    }

    /// Returns a command line, to be run in the project's context.
    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        let mut command = Command::new(format!("{}/{program}", self.directory()));
        command
            .args(words)
            .current_dir(self.project.context())
            .env_clear()
            .env("PATH", self.directory())
            .env("HOME", self.project.scratch().home())
            .env("LARDER_ROOT", self.project.scratch().root())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Run {
        Run::of(&mut self.command(line))
    }

    /// Runs a command line that asks, and answers it.
    fn run_answering(&self, line: &str, answer: &str) -> Run {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(answer.as_bytes()).unwrap();
        drop(writer);
        Run::of(self.command(line).stdin(reader))
    }

    #[track_caller]
    fn output(&self, line: &str) -> String {
        self.run(line).success().text()
    }
}

macro_rules! desk {
    () => {{
        let project = project!(Base::Busybox);
        project.write(&[
            (
                "Dockerfile",
                "FROM busybox\nCOPY file /\nRUN cat /file\nCMD [\"cat\", \"/file\"]\n",
            ),
            ("file", "content\n"),
        ]);
        Desk::new(project)
    }};
}

#[test]
fn links_are_made_and_replaced_only_when_asked() {
    let desk = desk!();
    for program in ["docker", "docker-compose", "docker-buildx"] {
        let link = std::fs::read_link(format!("{}/{program}", desk.directory())).unwrap();
        assert!(link.ends_with("larder"), "{link:?}");
    }
    let install = |args: &[&str]| {
        let larder = desk.project.larder();
        larder.run([&["shim", "install", &desk.directory()], args].concat())
    };
    // What is ours is no obstacle.
    let _ = install(&[]).success();
    let docker = format!("{}/docker", desk.directory());
    std::fs::remove_file(&docker).unwrap();
    std::fs::write(&docker, "somebody's").unwrap();
    let _ = install(&[])
        .exit(1)
        .says("is there already: `--force` replaces it");
    assert_eq!(std::fs::read(&docker).unwrap(), b"somebody's");
    let _ = install(&["--force"]).success();
    assert!(std::fs::read_link(&docker).is_ok());
}

#[test]
fn an_image_s_life_by_docker_s_verbs() {
    let desk = desk!();
    let built = desk.run("docker build --progress plain -t app .").success();
    assert!(built.stderr.contains("[3/3] RUN cat /file"));
    let id = desk.output("docker build -q .");
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    for line in [
        "docker buildx build -q .",
        "docker builder build -q .",
        "docker-buildx build -q .",
    ] {
        assert_eq!(desk.output(line), id, "{line}");
    }

    assert_eq!(
        desk.output("docker images -a --format {{.Repository}}:{{.Tag}} app"),
        "app:latest"
    );
    assert_eq!(desk.output("docker image ls --no-trunc -q app"), id);
    assert_eq!(desk.output("docker run --rm -it app"), "content");
    let _ = desk.run("docker tag app app:2").success();
    assert_eq!(desk.output("docker inspect -f {{.Id}} app:2"), id);
    assert!(desk.output("docker history -q app").starts_with(&id[7..19]));
    let _ = desk.run("docker save -o app.tar app:2").success();
    assert_eq!(desk.output("docker rmi app:2"), "Untagged: app:2");
    assert_eq!(desk.output("docker load -i app.tar"), "Loaded image: app:2");
    let removed = desk.output("docker image rm app app:2");
    assert!(removed.contains(&format!("Deleted: {id}")), "{removed}");
}

#[test]
fn a_run_exits_as_docker_s_does() {
    let desk = desk!();
    for (line, code, expected) in [
        ("docker run busybox sh -c exit\t7", 0, ""),
        ("docker run busybox false", 1, ""),
        ("docker run busybox /nope", 127, "no such file or directory"),
        (
            "docker run busybox nope",
            127,
            "executable file not found in $PATH",
        ),
        ("docker run busybox /etc", 126, "is a directory"),
        ("docker run nope", 125, "nope"),
        ("docker run --nope busybox", 125, "--nope"),
        ("docker run -d busybox", 125, "`--detach` is not available"),
        (
            "docker run -p 8080:80 busybox true",
            125,
            "`--publish 8080:80`",
        ),
        (
            "docker run -p 80:80 --name x --network host busybox true",
            0,
            "",
        ),
    ] {
        let _ = desk.run(line).exit(code).says(expected);
    }
}

#[test]
fn the_cache_s_verbs() {
    let desk = desk!();
    let _ = desk.run("docker build -t app .").success();
    let du = desk.output("docker buildx du");
    assert!(du.starts_with("ID"), "{du}");
    assert!(du.contains("\nTotal:\t"), "{du}");
    let line = "docker buildx prune --filter type=regular";
    let question = "WARNING! This will remove all dangling build cache. Are you sure you want to continue? [y/N]";
    for (answer, expected) in [("n\n", false), ("", false), ("y\n", true)] {
        let said = desk.run_answering(line, answer).success().text();
        assert!(said.starts_with(question), "{said}");
        assert_eq!(said.contains("Total:"), expected, "{said}");
    }
    let kept = desk
        .run("docker buildx prune -f --keep-storage 10GB --filter until=168h")
        .success();
    assert_eq!(
        kept.stderr,
        "Flag --keep-storage has been deprecated, keep-storage flag has been changed to reserved-space\n"
    );
    assert_eq!(kept.text(), "Total:\t0B");
    let _ = desk.run("docker builder prune -af").success();

    let listed = desk.output("docker system df");
    let rows: Vec<_> = listed
        .lines()
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    assert_eq!(
        rows,
        [
            "TYPE",
            "Images",
            "Containers",
            "Local Volumes",
            "Build Cache"
        ]
    );
    let said = desk
        .run_answering("docker system prune", "y\n")
        .success()
        .text();
    assert!(said.contains("Total reclaimed space: "), "{said}");
}

#[test]
fn images_without_a_name_are_pruned() {
    let desk = desk!();
    let first = desk.output("docker build -q -t app .");
    desk.project.write(&[("file", "other\n")]);
    let second = desk.output("docker build -q -t app .");
    assert_ne!(first, second);
    assert_eq!(
        desk.output("docker images -f dangling=true -q --no-trunc"),
        first
    );
    assert_eq!(
        desk.output("docker images --filter reference=app -q --no-trunc"),
        second
    );
    let pruned = desk
        .run_answering("docker image prune", "y")
        .success()
        .text();
    assert!(
        pruned.contains("This will remove all dangling images."),
        "{pruned}"
    );
    assert!(pruned.contains(&format!("deleted: {first}")), "{pruned}");
    assert!(!pruned.contains(&second), "{pruned}");
    let all = desk.output("docker image prune --all --force");
    assert!(all.contains(&second), "{all}");
    assert_eq!(desk.output("docker images -q"), "");
}

#[test]
fn versions_are_told_in_forms_that_programs_read() {
    let desk = desk!();
    let number = |text: &str| -> Vec<u32> {
        let text = text.trim_start_matches('v');
        text.split('.').map(|part| part.parse().unwrap()).collect()
    };
    let buildx = desk.output("docker buildx version");
    let words: Vec<_> = buildx.split(' ').collect();
    assert_eq!((words[0], words.len()), ("github.com/docker/buildx", 3));
    assert!(number(words[1]) >= vec![0, 17, 0], "{buildx}");
    assert_eq!(desk.output("docker-buildx version"), buildx);

    let compose = desk.output("docker compose version");
    let version = compose.strip_prefix("Docker Compose version ").unwrap();
    assert!(number(version) >= vec![2, 0, 0], "{compose}");
    assert_eq!(desk.output("docker-compose --version"), compose);
    let short = desk.output("docker-compose version --short");
    assert_eq!(format!("v{short}"), version);

    let docker = desk.output("docker --version");
    let version = docker
        .strip_prefix("Docker version ")
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    assert!(number(version) >= vec![23, 0, 0], "{docker}");
    assert_eq!(
        desk.output("docker version --format {{.Server.Version}}"),
        version
    );
    let told = desk.output("docker version");
    assert!(
        told.contains("BuildKit API:  compatible with v0."),
        "{told}"
    );
    assert_eq!(desk.output("docker info -f {{.OSType}}"), "linux");
    let told = desk.output("docker info");
    assert!(told.contains(" Images: 1\n"), "{told}");

    for (program, minimum) in [
        ("docker-buildx", vec![0, 17, 0]),
        ("docker-compose", vec![2, 0, 0]),
    ] {
        let text = desk.output(&format!("{program} docker-cli-plugin-metadata"));
        let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(metadata["SchemaVersion"], "0.1.0");
        assert!(
            number(metadata["Version"].as_str().unwrap()) >= minimum,
            "{text}"
        );
    }
}

#[test]
fn the_builder_is_shown_as_buildx_shows_one() {
    let desk = desk!();
    let listed = desk.output("docker buildx ls");
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "NAME/NODE",
            "DRIVER/ENDPOINT",
            "STATUS",
            "BUILDKIT",
            "PLATFORMS"
        ]
    );
    assert_eq!(lines[1], ["default*", "larder"]);
    assert_eq!(
        lines[2][..5],
        ["\\_", "default", "\\_", "default", "running"]
    );
    let told = desk.output("docker buildx inspect --bootstrap");
    for expected in [
        "Name:   default\nDriver: larder\n",
        "Status:           running\n",
        "GC Policy rule#0:\n All:             false\n Filters:         ",
        " Keep Duration:   48h0m0s\n",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let _ = desk
        .run("docker buildx inspect other")
        .exit(1)
        .says("no builder \"other\" found");
}

#[test]
fn what_larder_has_not_is_named() {
    let desk = desk!();
    for (line, expected) in [
        ("docker ps", "ERROR: `docker ps` is not available: "),
        (
            "docker swarm init",
            "ERROR: `docker swarm` is not available in larder",
        ),
        (
            "docker buildx create --use",
            "ERROR: `docker buildx create` is not available: ",
        ),
        (
            "docker import tree.tar app",
            "ERROR: `docker import` is not available",
        ),
        ("docker --context prod build .", "ERROR: `--context prod`: "),
        (
            "docker buildx imagetools create x",
            "ERROR: `docker buildx imagetools create` is not available",
        ),
        (
            "docker system prune --volumes -f",
            "`docker system prune --volumes` is not available",
        ),
    ] {
        let _ = desk.run(line).exit(1).says(expected);
    }
    let help = desk.output("docker --help");
    assert!(
        help.contains("  docker buildx imagetools inspect\n"),
        "{help}"
    );
}

#[test]
fn the_old_builder_is_asked_for_in_vain() {
    let desk = desk!();
    let build = |value: &str| Run::of(desk.command("docker build .").env("DOCKER_BUILDKIT", value));
    let _ = build("0")
        .success()
        .says("WARNING: `DOCKER_BUILDKIT` is ignored: there is one builder");
    assert!(!build("1").success().stderr.contains("WARNING"));
    let compose = "services: {app: {build: .}}\n";
    desk.project.write(&[("compose.yaml", compose)]);
    let _ = Run::of(
        desk.command("docker-compose build")
            .env("DOCKER_BUILDKIT", "0"),
    )
    .success()
    .says("WARNING: `DOCKER_BUILDKIT` is ignored: there is one builder");
    // The daemon's configuration has the same switch.
    let etc = desk.project.scratch().home().join(".docker");
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::write(
        etc.join("daemon.json"),
        r#"{"features": {"buildkit": true}}"#,
    )
    .unwrap();
    assert!(
        !desk
            .run("docker build .")
            .success()
            .stderr
            .contains("WARNING")
    );
}

#[test]
fn images_go_to_registries_and_come_back() {
    let desk = desk!();
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(error) => skip!("no registry: {error:#}"),
    };
    let name = format!("{}/app:1", registry.host());
    let _ = desk.run(&format!("docker build -t {name} .")).success();
    let _ = desk.run(&format!("docker push {name}")).success();
    let told = desk.output(&format!("docker buildx imagetools inspect {name}"));
    assert!(
        told.starts_with(&format!("Name:      {name}\nMediaType: application/vnd.")),
        "{told}"
    );
    let raw = desk.output(&format!("docker buildx imagetools inspect --raw {name}"));
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["schemaVersion"], 2);
    let _ = desk.run(&format!("docker rmi {name}")).success();
    let _ = desk.run(&format!("docker pull {name}")).success();
    assert_eq!(desk.output(&format!("docker run {name}")), "content");
}

#[test]
fn another_configuration_of_docker_s_can_be_named() {
    let desk = desk!();
    let config = desk.project.scratch().join("config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.json"), "{").unwrap();
    let line = format!("docker --config {} build .", config.display());
    // What can't be read was read.
    let _ = desk.run(&line).success().says("cannot read proxies");
    assert!(
        !desk
            .run("docker build .")
            .success()
            .stderr
            .contains("cannot read")
    );
}
