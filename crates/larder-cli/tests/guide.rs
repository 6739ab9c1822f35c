//! The caching guide of a Python team, word for word: its commands, with nothing but larder's
//! shims in `PATH`, on the example service.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;
use larder_testkit::{Base, Larder, Registry, Run, Scratch, Step, skip};

/// The example's step that installs its packages, as shown.
const INSTALL: &str = "pip install -r requirements.txt";

const SOURCE_PACKAGE: &str = "peewee==3.17.9";

/// A developer's shell in a copy of the example, with a registry at hand.
struct Shell {
    scratch: Scratch,
    registry: Registry,
    shims: PathBuf,
}

impl Shell {
    fn new() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "no root");
        let archive = Base::Python.archive()?;
        let registry = Registry::start()?;
        registry.push_archive(&archive, "library/python", "3.11-slim")?;
        let scratch = Scratch::new();
        let shims = scratch.join("shims");
        let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
        let installed = larder.run(["shim", "install", shims.to_str().context("a path")?]);
        let _ = installed.success();
        let config = format!(
            "[build]\nhost-ca = true\n[registry.\"docker.io\"]\nmirrors = [\"{}\"]\n",
            registry.host()
        );
        fs::write(scratch.join("larder.toml"), config)?;
        fs::create_dir_all(scratch.home())?;
        let shell = Self {
            scratch,
            registry,
            shims,
        };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/smartdiet");
        copy(&example, &shell.project())?;
        Ok(shell)
    }

    fn project(&self) -> PathBuf {
        self.scratch.join("smartdiet")
    }

    /// Runs a line of the guide on the state root `root`.
    fn run_on(&self, root: &str, line: &str) -> Run {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-ec", &format!("export DOCKER_BUILDKIT=1\n{line}")])
            .current_dir(self.project())
            .env_clear()
            .env("PATH", &self.shims)
            .env("HOME", self.scratch.home())
            .env("LARDER_ROOT", self.scratch.join(root))
            .env("LARDER_CONFIG", self.scratch.join("larder.toml"))
            .stdin(Stdio::null());
        for name in ["SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = std::env::var_os(name) {
                shell.env(name, value);
            }
        }
        Run::of(&mut shell)
    }

    fn run(&self, line: &str) -> Run {
        self.run_on("root", line).success()
    }

    /// Replaces text in a file of the project.
    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.project().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "`{from}` is not in {file}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The step whose name contains `text`, wherever it stands.
fn step(run: &Run, text: &str) -> Step {
    let found = run
        .steps()
        .into_iter()
        .find(|step| step.name.contains(text));
    found.unwrap_or_else(|| panic!("no step `{text}` in:\n{}", run.stderr))
}

#[track_caller]
fn cached(run: &Run, steps: &[&str]) {
    for text in steps {
        assert!(step(run, text).is_cached(), "{text} ran:\n{}", run.stderr);
    }
}

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    let shell = match Shell::new() {
        Ok(shell) => shell,
        Err(error) => skip!("{error:#}"),
    };
    // One package comes as source only: pip keeps the wheel that it builds, where of others it
    // keeps what the index allows.
    let requirements = shell.project().join("requirements.txt");
    let list = fs::read_to_string(&requirements).unwrap();
    fs::write(&requirements, format!("{SOURCE_PACKAGE}\n{list}")).unwrap();
    // The first build, and the second.
    let first = shell.run("docker-compose build");
    let downloads = step(&first, INSTALL).output().join("\n");
    assert!(downloads.contains("Downloading "), "{downloads}");
    let second = shell.run("docker-compose build");
    cached(
        &second,
        &["WORKDIR /app", "COPY requirements.txt", INSTALL, "COPY . ."],
    );
    // What there is in the cache.
    let du = shell.run("docker buildx du").text();
    assert!(du.starts_with("ID"), "{du}");
    assert!(du.contains("\nTotal:"), "{du}");
    let mounts = shell.run("docker buildx du --verbose --filter type=exec.cachemount");
    let mounts = mounts.text();
    assert!(mounts.contains("/root/.cache/pip"), "{mounts}");
    // Editing the code keeps the packages.
    shell.edit("smartdiet/planner.py", "\n", "\n# Edited.\n");
    let edited = shell.run("DOCKER_BUILDKIT=1 docker-compose build api");
    cached(
        &edited,
        &["2/5] WORKDIR /app", "3/5] COPY requirements.txt", INSTALL],
    );
    assert!(!step(&edited, "COPY . .").is_cached());
    // The image goes, and the list of packages changes; the downloads stay.
    shell.run("docker rmi smartdiet-api smartdiet-worker");
    shell.edit("requirements.txt", "\n", "\n# Pinned.\n");
    let rebuilt = shell.run("docker-compose build api");
    let installed = step(&rebuilt, INSTALL).output().join("\n");
    assert!(installed.contains("Using cached peewee-"), "{installed}");
    // The tagged image as a cache source, when all other cache is gone.
    shell.edit(
        "docker-compose.yml",
        "build: .\n    image: smartdiet-api\n",
        "build:\n      context: .\n      args:\n        BUILDKIT_INLINE_CACHE: 1\n      \
         cache_from:\n        - smartdiet-api:latest\n    image: smartdiet-api\n",
    );
    let whole = ["WORKDIR /app", "COPY requirements.txt", INSTALL, "COPY . ."];
    cached(&shell.run("docker-compose build api"), &whole);
    let prompt = shell.run("printf 'y\n' | docker buildx prune --all");
    let prompt = format!("{}{}", prompt.text(), prompt.stderr);
    assert!(prompt.contains("[y/N]"), "{prompt}");
    assert!(prompt.contains("Total:"), "{prompt}");
    cached(&shell.run("docker-compose build api"), &whole);
    // From the start.
    let anew = shell.run("docker-compose build --no-cache");
    assert!(!step(&anew, INSTALL).is_cached(), "{}", anew.stderr);
    // A single record, and what is old.
    let ids = shell.run("docker buildx du --filter type=exec.cachemount --format '{{.ID}}'");
    let id = ids.text().lines().next().unwrap().to_owned();
    let pruned = shell.run(&format!("docker buildx prune -f --filter id={id}"));
    assert!(pruned.text().contains(&id), "{}", pruned.text());
    let aged = "docker buildx prune -f --keep-storage 10GB --filter until=168h";
    assert!(shell.run(aged).text().contains("Total:"));
    // The multi-stage Dockerfile.
    let stages = shell.run("docker build -f Dockerfile.multistage --target api -t api .");
    assert!(
        step(&stages, "pip install --prefix=/install")
            .output()
            .len()
            > 1
    );
    let checked = shell.run("docker run --rm api python -m smartdiet selfcheck");
    assert!(
        checked.text().contains("smartdiet: ok"),
        "{}",
        checked.text()
    );
}

#[test]
fn two_tags_of_a_registry_are_the_cache_of_an_empty_machine() {
    let shell = match Shell::new() {
        Ok(shell) => shell,
        Err(error) => skip!("{error:#}"),
    };
    let image = format!("{}/team/smartdiet-api", shell.registry.host());
    // What takes long is not the point here.
    shell.edit("Dockerfile", INSTALL, "sort requirements.txt > /installed");
    shell.edit(
        "docker-compose.yml",
        "build: .\n    image: smartdiet-api\n",
        &format!(
            "build:\n      context: .\n      args: {{BUILDKIT_INLINE_CACHE: 1}}\n      \
             cache_from: [\"{image}:latest\", \"{image}:develop\"]\n    image: {image}:${{TAG:-latest}}\n"
        ),
    );
    let missing = shell.run("docker-compose build api");
    assert!(!step(&missing, "sort ").is_cached());
    shell.run(&format!("docker push -q {image}:latest"));
    shell.edit("smartdiet/planner.py", "\n", "\n# Of another branch.\n");
    shell.run("TAG=develop docker-compose build api");
    shell.run(&format!("docker push -q {image}:develop"));
    // Another machine: both branches are found.
    let found = shell.run_on("second", "docker-compose build api").success();
    cached(
        &found,
        &["WORKDIR /app", "COPY requirements.txt", "sort ", "COPY . ."],
    );
    shell.edit("smartdiet/planner.py", "\n# Of another branch.\n", "\n");
    let latest = shell.run_on("third", "docker compose build api").success();
    cached(
        &latest,
        &["WORKDIR /app", "COPY requirements.txt", "sort ", "COPY . ."],
    );
    let run = format!("docker run --rm {image}:latest head -1 /installed");
    let _ = shell.run_on("third", &run).success();
}
