//! Importing caches: what an empty machine finds, fetches, and does without.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use fs_err as fs;
use larder_oci::Digest;
use larder_store::{Clock, Options, Snapshotter, Store};
use larder_testkit::{
    Base, Fault, FaultProxy, Larder, On, Registry, Run, Scratch, Step, kill_many, skip, write_tree,
};
use larder_tree::apply::Ownership;
use serde_json::Value;

const DOCKERFILE: &str = "\
FROM busybox AS builder
RUN seq 200000 > /built
FROM busybox
COPY --from=builder /built /large
COPY app /app
RUN cat /app/main > /made
";

/// A context, and a registry behind a proxy that sees all requests.
struct Setup {
    proxy: FaultProxy,
    registry: Registry,
    scratch: Scratch,
}

impl Setup {
    fn new() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "no root");
        let archive = Base::Busybox.archive()?;
        let registry = Registry::start()?;
        registry.push_archive(&archive, "library/busybox", "latest")?;
        let proxy = FaultProxy::start(registry.host())?;
        let scratch = Scratch::new();
        let files = [("Dockerfile", DOCKERFILE), ("app/main", "1")];
        scratch.context("context", &files);
        let config = format!(
            "[registry.\"docker.io\"]\nmirrors = [\"{}\"]\n",
            registry.host()
        );
        fs::write(scratch.join("larder.toml"), config)?;
        Ok(Self {
            proxy,
            registry,
            scratch,
        })
    }

    /// The larder of a machine of its own.
    fn machine(&self, name: &str) -> Larder {
        Larder::new(env!("CARGO_BIN_EXE_larder"), &self.scratch)
            .with_root(self.scratch.join(name))
            .with_env("LARDER_CONFIG", self.scratch.join("larder.toml"))
    }

    fn build(&self, machine: &str, args: &[&str]) -> Run {
        let machine = self.machine(machine);
        let mut command = machine.command(["build", "--progress", "plain"]);
        Run::of(command.args(args).arg(self.scratch.join("context")))
    }

    fn cache(&self) -> String {
        format!("{}/team/cache:main", self.proxy.host())
    }

    /// Builds on the machine `first`, and leaves its cache in the registry.
    fn export(&self) {
        let to = format!("type=registry,ref={},mode=max", self.cache());
        let _ = self.build("first", &["--cache-to", &to]).success();
        self.proxy.forget();
    }

    /// How many layers have been fetched through the proxy.
    fn fetched_layers(&self) -> usize {
        // The config of the cache is a blob, too.
        self.proxy.count("GET", "/blobs/").saturating_sub(1)
    }

    fn write(&self, files: &[(&str, &str)]) {
        write_tree(&self.scratch.join("context"), files);
    }
}

macro_rules! setup {
    () => {
        match Setup::new() {
            Ok(setup) => setup,
            Err(error) => skip!("{error:#}"),
        }
    };
}

/// What was said of the import.
fn import_step(run: &Run) -> Step {
    let found = run
        .steps()
        .into_iter()
        .find(|step| step.name.starts_with("importing cache manifest from "));
    found.unwrap_or_else(|| panic!("nothing was imported:\n{}", run.stderr))
}

#[test]
fn an_empty_machine_finds_all_and_fetches_nothing_until_it_must() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    let args = ["--cache-from", &cache, "-t", "app"];
    let run = setup.build("second", &args).success();
    assert_eq!(run.ran(), [""; 0], "{}", run.stderr);
    assert_eq!(setup.fetched_layers(), 0, "{:?}", setup.proxy.exchanges());
    let inferred = "inferred cache manifest type: application/vnd.oci.image.manifest.v1+json";
    let step = import_step(&run);
    assert!(
        step.lines.iter().any(|line| line.starts_with(inferred)),
        "{step:?}"
    );
    // The image is whole when it is needed.
    let made = setup.machine("second").run(["run", "app", "cat", "/made"]);
    assert_eq!(made.success().text(), "1");
    assert!(setup.fetched_layers() >= 3);
    // What is in the store by now needs neither cache nor network.
    setup.proxy.forget();
    let again = setup.build("second", &["--cache-from", &cache, "-t", "app"]);
    assert_eq!(again.success().ran(), [""; 0]);
    let layers = setup.fetched_layers();
    assert_eq!(layers, 0, "{:?}", setup.proxy.exchanges());
}

#[test]
fn a_change_fetches_what_the_steps_after_it_stand_on() {
    let setup = setup!();
    setup.export();
    setup.write(&[("app/main", "2")]);
    let cache = setup.cache();
    let args = ["--cache-from", &cache, "-t", "app"];
    let run = setup.build("second", &args).success();
    assert_eq!(run.ran(), ["COPY app /app", "RUN cat /app/main > /made"]);
    let made = setup.machine("second").run(["run", "app", "cat", "/made"]);
    assert_eq!(made.success().text(), "2");
    // The builder's layers are not among them: the base, and what was copied from the builder.
    assert!(setup.fetched_layers() <= 2, "{:?}", setup.proxy.exchanges());
    let large = setup
        .machine("second")
        .run(["run", "app", "tail", "-1", "/large"]);
    assert_eq!(large.success().text(), "200000");
}

#[test]
fn a_local_hit_asks_nobody() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    let run = setup.build("first", &["--cache-from", &cache]).success();
    assert_eq!(run.ran(), [""; 0]);
    assert_eq!(setup.proxy.exchanges(), []);
}

#[test]
fn a_source_that_is_not_there_costs_a_word() {
    let setup = setup!();
    let missing = format!("{}/team/nothing:here", setup.proxy.host());
    let directory = setup.scratch.join("nowhere");
    let local = format!("type=local,src={}", directory.display());
    let dead = "127.0.0.1:1/team/cache:main";
    for (machine, source) in [("a", missing.as_str()), ("b", &local), ("c", dead)] {
        let run = setup.build(machine, &["--cache-from", source]).success();
        assert_eq!(run.ran().len(), 5, "{source}: {}", run.stderr);
    }
}

#[test]
fn a_damaged_cache_is_a_miss() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    // The config does not have its digest.
    setup
        .proxy
        .inject(On::new("GET", "/blobs/").times(100), Fault::FlipBit);
    let run = setup.build("a", &["--cache-from", &cache]).success();
    assert_eq!(run.ran().len(), 5, "{}", run.stderr);
    assert!(
        import_step(&run)
            .lines
            .iter()
            .any(|line| line.starts_with("ERROR: "))
    );
    // The config does, the layers don't: what stands on them runs again.
    setup.proxy.forget();
    setup.proxy.inject(
        On::new("GET", "/blobs/").after(1).times(100),
        Fault::FlipBit,
    );
    setup.write(&[("app/main", "2")]);
    let run = setup
        .build("b", &["--cache-from", &cache, "-t", "app"])
        .success();
    let lost = "its imported result can't be fetched";
    let causes: Vec<String> = run.misses().into_iter().map(|(_, cause)| cause).collect();
    assert!(causes.iter().any(|cause| cause == lost), "{}", run.stderr);
    let made = setup
        .machine("b")
        .run(["run", "app", "sh", "-c", "cat /made; tail -1 /large"]);
    assert_eq!(made.success().text(), "2200000");
}

#[test]
fn a_result_that_is_lost_at_the_end_is_made_again() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    setup.proxy.inject(
        On::new("GET", "/blobs/").after(1).times(100),
        Fault::answer(404),
    );
    let out = setup.scratch.join("out");
    let output = format!("type=local,dest={}", out.display());
    let args = ["--cache-from", &cache, "--output", &output];
    let _ = setup.build("second", &args).success();
    assert_eq!(fs::read_to_string(out.join("made")).unwrap(), "1");
    assert!(
        fs::read_to_string(out.join("large"))
            .unwrap()
            .ends_with("\n200000\n")
    );
}

#[test]
fn a_directory_serves_as_well() {
    let setup = setup!();
    let directory = setup.scratch.join("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    let from = format!("type=local,src={}", directory.display());
    let _ = setup.build("first", &["--cache-to", &to]).success();
    let run = setup.build("second", &["--cache-from", &from, "-t", "app"]);
    let run = run.success();
    assert_eq!(run.ran(), [""; 0], "{}", run.stderr);
    let made = setup.machine("second").run(["run", "app", "cat", "/made"]);
    assert_eq!(made.success().text(), "1");
}

#[test]
fn machines_push_the_same_image() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    let name = format!("{}/team/app:1", setup.proxy.host());
    let _ = setup.build("first", &["-t", &name, "--push"]).success();
    let first = setup.registry_digest("team/app", "1");
    setup.proxy.forget();
    let args = ["--cache-from", &cache, "-t", &name, "--push"];
    let run = setup.build("second", &args).success();
    assert_eq!(run.ran(), [""; 0], "{}", run.stderr);
    assert_eq!(setup.registry_digest("team/app", "1"), first);
    assert_eq!(setup.fetched_layers(), 0, "{:?}", setup.proxy.exchanges());
}

impl Setup {
    /// What a tag of the registry leads to.
    fn registry_digest(&self, repository: &str, tag: &str) -> String {
        let reference = format!("docker://{}/{repository}:{tag}", self.registry.host());
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]);
        Run::of(skopeo.arg(reference)).success().text()
    }
}

#[test]
fn a_slow_source_does_not_hold_up_what_is_known() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    setup.proxy.inject(
        On::new("", "/").times(100),
        Fault::Delay(Duration::from_secs(120)),
    );
    let run = setup.build("first", &["--cache-from", &cache]).success();
    assert_eq!(run.ran(), [""; 0]);
}

/// What a linked copy made is one of an image's layers, and not the lowest.
#[test]
fn a_stored_image_gives_each_step_its_own_layers() {
    let setup = setup!();
    let dockerfile =
        |text: &str| format!("FROM busybox\nRUN echo {text} > /said\nCOPY --link app /app\n");
    setup.write(&[("Dockerfile", &dockerfile("one"))]);
    let name = format!("{}/team/held:1", setup.proxy.host());
    let args = ["--cache-to", "type=inline", "-t", &name, "--push"];
    let _ = setup.build("first", &args).success();
    let second = setup.machine("second");
    let _ = second.run(["pull", &name]).success();
    setup.write(&[("Dockerfile", &dockerfile("two"))]);
    let run = setup.build("second", &["--cache-from", &name, "-t", "app"]);
    let run = run.success();
    let shown = second.run(["run", "app", "cat", "/said", "/app/main"]);
    assert_eq!(shown.success().text(), "two\n1", "{}", run.stderr);
}

/// What a cache says of a step is believed, as in BuildKit; what was not fetched leaves nothing.
#[test]
fn what_was_fetched_stays_without_the_cache_and_nothing_else_does() {
    let setup = setup!();
    let dockerfile = "\
FROM busybox
RUN --mount=type=secret,id=who,target=/who cat /who > /made
RUN cp /made /again
";
    setup.write(&[("Dockerfile", dockerfile)]);
    let out = setup.scratch.join("out");
    let output = format!("type=local,dest={}", out.display());
    let build = |machine: &str, args: &[&str]| {
        let secret = setup.scratch.join(format!("{machine}-secret"));
        fs::write(&secret, machine).unwrap();
        let secret = format!("id=who,src={}", secret.display());
        let args = [&["--secret", &secret], args].concat();
        setup.build(machine, &args).success()
    };
    let made = || fs::read_to_string(out.join("again")).unwrap();
    let cache = setup.cache();
    let to = format!("type=registry,ref={cache},mode=max");
    let _ = build("first", &["--cache-to", &to]);
    let _ = build("second", &["--cache-from", &cache, "-t", "app"]);
    let run = build("second", &["-o", &output]);
    assert!(run.ran().contains(&"RUN cp /made /again".to_owned()));
    assert_eq!(made(), "second");
    let _ = build("third", &["--cache-from", &cache, "-o", &output]);
    assert_eq!(made(), "first");
    let run = build("third", &["-o", &output]);
    assert!(!run.ran().contains(&"RUN cp /made /again".to_owned()));
    assert_eq!(made(), "first");
    let _ = build(
        "third",
        &["--no-cache", "--cache-from", &cache, "-o", &output],
    );
    assert_eq!(made(), "third");
    let _ = build("third", &["--cache-from", &cache, "-o", &output]);
    assert_eq!(made(), "third");
}

/// A source whose layers went after its records were read.
#[test]
fn what_can_no_more_be_fetched_fails_neither_exports_nor_pushes() {
    let setup = setup!();
    let other = Registry::start().unwrap();
    setup.export();
    let cache = setup.cache();
    let build = |machine: &str, args: &[&str]| {
        setup.proxy.forget();
        let layers = On::new("GET", "/blobs/").after(1).times(1000);
        setup.proxy.inject(layers, Fault::answer(404));
        let args = [&["--cache-from", &cache], args].concat();
        setup.build(machine, &args).success()
    };
    let directory = setup.scratch.join("cache");
    let local = format!("type=local,dest={},mode=max", directory.display());
    let remote = format!("type=registry,ref={}/team/cache:1,mode=max", other.host());
    for (machine, to) in [("a", &local), ("b", &remote)] {
        let run = build(machine, &["--cache-to", to]);
        let warning = "WARN: imported results can't be fetched, and are left out: ";
        assert!(run.stderr.contains(warning), "{}", run.stderr);
    }
    let image = format!("{}/team/app:1", other.host());
    let _ = build("c", &["-t", &image, "--push"]);
    let last = setup.machine("last");
    let _ = last.run(["pull", &image]).success();
    let made = last.run(["run", &image, "cat", "/made"]);
    assert_eq!(made.success().text(), "1");
}

/// Changes all layers of a cache in a directory to what `change` makes of their descriptors.
fn change_layers(directory: &Path, change: &dyn Fn(&mut Value)) {
    let blobs = directory.join("blobs/sha256");
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let mut index = read(&directory.join("index.json"));
    let entry = &mut index["manifests"][0];
    let digest = entry["digest"].as_str().unwrap().to_owned();
    let mut manifest = read(&blobs.join(&digest["sha256:".len()..]));
    for layer in manifest["layers"].as_array_mut().unwrap() {
        change(layer);
    }
    let bytes = manifest.to_string();
    let digest = Digest::sha256(&bytes);
    fs::write(blobs.join(digest.hex()), &bytes).unwrap();
    entry["digest"] = digest.to_string().into();
    entry["size"] = bytes.len().into();
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn a_layer_that_no_disk_has_room_for_is_a_miss() {
    let setup = setup!();
    let directory = setup.scratch.join("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    let from = format!("type=local,src={}", directory.display());
    let _ = setup.build("first", &["--cache-to", &to]).success();
    let config = setup.scratch.join("larder.toml");
    let ceiling = fs::read_to_string(&config).unwrap() + "[cache]\nmax = \"1GB\"\n";
    fs::write(&config, ceiling).unwrap();
    for size in [1_u64 << 40, 1 << 62, i64::MAX as u64, u64::MAX] {
        change_layers(&directory, &|layer| layer["size"] = size.into());
        let machine = format!("m{size}");
        setup.write(&[("app/main", &machine)]);
        let args = ["--cache-from", &from, "-t", "app"];
        let _ = setup.build(&machine, &args).success();
        let made = setup.machine(&machine).run(["run", "app", "cat", "/made"]);
        assert_eq!(made.success().text(), machine);
    }
}

/// Waiting for each result would take minutes.
#[test]
fn a_source_that_falls_silent_is_not_asked_for_each_step() {
    let setup = setup!();
    setup.export();
    setup.write(&[("app/main", "2")]);
    setup.proxy.inject(
        On::new("GET", "/blobs/").after(1).times(1000),
        Fault::answer(503),
    );
    let cache = setup.cache();
    let args = ["--cache-from", &cache, "-t", "app"];
    let run = setup.build("second", &args).success();
    let made = setup.machine("second").run(["run", "app", "cat", "/made"]);
    assert_eq!(made.success().text(), "2");
    let warning = "WARN: the imported result can't be fetched";
    let warnings = run.stderr.matches(warning).count();
    assert_eq!(warnings, 1, "{}", run.stderr);
}

/// Two chains of a cache begin with one layer, which is damaged.
#[test]
fn what_is_damaged_is_asked_for_once() {
    let setup = setup!();
    let dockerfile = "\
FROM busybox AS below
RUN seq 1000 > /below
FROM below AS one
RUN echo 1 > /one
FROM below
COPY --from=one /one /
COPY app /app
";
    setup.write(&[("Dockerfile", dockerfile)]);
    setup.export();
    let cache = setup.cache();
    setup.proxy.inject(
        On::new("GET", "/blobs/").after(1).times(1000),
        Fault::FlipBit,
    );
    setup.write(&[("app/main", "2")]);
    let run = setup.build("second", &["--cache-from", &cache, "-t", "app"]);
    let run = run.success();
    let made = setup.machine("second").run(["run", "app", "cat", "/one"]);
    assert_eq!(made.success().text(), "1");
    let mut targets: Vec<String> = setup
        .proxy
        .exchanges()
        .into_iter()
        .map(|one| one.target)
        .collect();
    let all = targets.len();
    targets.sort();
    targets.dedup();
    assert_eq!(targets.len(), all, "{targets:?}\n{}", run.stderr);
}

/// What can't be had is not waited for, nor what only is of use with it.
#[test]
fn one_missing_layer_ends_the_wait_for_the_others() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    // What changes stands on two layers of the cache.
    let dockerfile = DOCKERFILE.replace("cat /app/main", "tr 1 2 < /app/main");
    setup.write(&[("Dockerfile", &dockerfile)]);
    // The config comes, then one layer hangs for longer than any test, and the other one is missing.
    let silence = Fault::Delay(Duration::from_secs(3600));
    setup
        .proxy
        .inject(On::new("GET", "/blobs/").after(1), silence);
    setup.proxy.inject(
        On::new("GET", "/blobs/").after(1).times(1000),
        Fault::answer(404),
    );
    let run = setup.build("second", &["--cache-from", &cache, "-t", "app"]);
    let run = run.success();
    assert!(!run.stderr.contains("nothing came of"), "{}", run.stderr);
    let made = setup.machine("second").run(["run", "app", "cat", "/made"]);
    assert_eq!(made.success().text(), "2");
}

/// How often larder is killed while it sends or fetches.
const KILLS: usize = 24;
/// Long enough for any of the commands to get to its end now and then.
const LONGEST: Duration = Duration::from_millis(600);

/// Two targets that share a stage, each with a cache in one directory.
const BAKE: &str = r#"{
  "group": {"default": {"targets": ["one", "two"]}},
  "target": {
    "base": {"context": "CONTEXT", "args": {"N": "ROUND"}, "cache-from": ["CACHE"]},
    "one": {"inherits": ["base"], "tags": ["one"], "target": "builder",
            "cache-to": ["type=local,dest=OUT,tag=one,mode=max"]},
    "two": {"inherits": ["base"], "tags": ["two"],
            "cache-to": ["type=local,dest=OUT,tag=two,mode=max"]}
  }
}"#;

#[test]
fn a_kill_while_caches_and_images_travel_breaks_nothing() {
    let setup = setup!();
    let dockerfile = DOCKERFILE.replace("RUN seq", "ARG N\nRUN echo $N && seq");
    setup.write(&[("Dockerfile", &dockerfile)]);
    setup.export();
    let (cache, out) = (setup.cache(), setup.scratch.join("out"));
    let image = format!("{}/team/app:1", setup.proxy.host());
    let machine = setup.machine("victim");
    let context = setup.scratch.join("context");
    let context = context.to_str().unwrap();
    let local = format!("type=local,dest={},mode=max", out.display());
    let remote = format!("type=registry,ref={cache},mode=max");
    let bake = setup.scratch.join("bake.json");
    let build = |n: &str, args: &[&str]| {
        let mut command = machine.command(["build", "--build-arg", n]);
        command.args(args).arg(context);
        command
    };
    let victim = |round: usize| {
        let n = format!("N={}", round / 8);
        match round % 8 {
            0 => build(&n, &["--cache-from", &cache, "-t", &image, "--push"]),
            1 => build(&n, &["--no-cache", "--cache-to", &remote]),
            2 => build(&n, &["--no-cache", "--cache-to", &local]),
            3 => machine.command(["push", &image]),
            4 => {
                // Nothing is there, all is fetched.
                let _ = machine.run(["prune", "-a", "-f"]).success();
                let to = format!("type=local,dest={}", setup.scratch.join("tree").display());
                build("N=", &["--cache-from", &cache, "-o", &to])
            }
            5 => machine.command(["pull", &image]),
            6 => {
                let file = BAKE.replace("CONTEXT", context).replace("CACHE", &cache);
                let file = file.replace("OUT", out.to_str().unwrap());
                fs::write(&bake, file.replace("ROUND", &round.to_string())).unwrap();
                machine.command(["bake", "-f", bake.to_str().unwrap()])
            }
            _ => build(&n, &["--cache-to", "type=inline", "-t", &image]),
        }
    };
    let next_command = |round: usize| {
        let from = format!("type=local,src={}", out.display());
        let from = if round.is_multiple_of(2) {
            &cache
        } else {
            &from
        };
        let _ = Run::of(&mut build("N=", &["--cache-from", from, "-t", &image])).success();
        let _ = machine.run(["images"]).success();
    };
    let kills = kill_many(12, KILLS, LONGEST, victim, next_command).unwrap();
    assert!(kills > KILLS / 2, "only {kills} were killed in time");
    let made = machine.run(["run", &image, "cat", "/made"]);
    assert_eq!(made.success().text(), "1");
    let _ = machine.run(["push", &image]).success();
    // The directory holds what its entries lead to, and nothing else.
    let local = format!("type=local,dest={},mode=max,reset=true", out.display());
    let _ = Run::of(&mut build("N=last", &["--cache-to", &local])).success();
    let ingest = fs::read_dir(out.join("ingest")).unwrap();
    assert_eq!(ingest.count(), 0);
    let _ = machine.run(["prune", "-a", "-f"]).success();
    let options = Options {
        clock: Clock::new(jiff::Timestamp::now),
        snapshotter: Snapshotter::Overlay { userxattr: false },
        ownership: Ownership::Preserve,
        mounter: None,
        ceiling: None,
        settle_after: None,
    };
    let problems = Store::open(machine.root(), options).unwrap().check();
    assert_eq!(problems.unwrap().len(), 0);
    for directory in ["tmp", "trash", "leases"] {
        let left: Vec<_> = fs::read_dir(machine.root().join(directory))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

/// All that can be asked of an image whose layers are still in the registry.
#[test]
fn an_image_of_which_nothing_was_fetched_is_whole() {
    let setup = setup!();
    setup.export();
    let cache = setup.cache();
    let args = ["--cache-from", &cache, "-t", "app"];
    let _ = setup.build("second", &args).success();
    let machine = setup.machine("second");
    let _ = machine.run(["tag", "app", "other"]).success();
    let _ = machine.run(["images"]).success();
    let _ = machine.run(["inspect", "app"]).success();
    assert_eq!(setup.fetched_layers(), 0, "{:?}", setup.proxy.exchanges());
    let archive = setup.scratch.join("saved.tar");
    let save = ["save", "app", "-o", archive.to_str().unwrap()];
    // Where the layers can't be had, that is said.
    setup
        .proxy
        .inject(On::new("GET", "/blobs/").times(100), Fault::answer(404));
    let failed = machine.run(save).exit(1);
    assert!(
        failed.stderr.contains(setup.proxy.host()),
        "{}",
        failed.stderr
    );
    setup.proxy.forget();
    let _ = machine.run(save).success();
    let third = setup.machine("third");
    let load = ["load", "-i", archive.to_str().unwrap()];
    let _ = third.run(load).success();
    let made = third.run(["run", "app", "cat", "/made"]);
    assert_eq!(made.success().text(), "1");
}
