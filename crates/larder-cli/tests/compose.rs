//! `larder compose build` and `config`: the projects of compose files, built.

use std::process::Command;

use fs_err as fs;
use larder_testkit::{Base, OciArchive, Project, Registry, Run, project, skip};

/// Runs `larder compose ARGS…` in the project's directory.
fn compose(project: &Project, args: &[&str]) -> Run {
    Run::of(&mut command(project, args))
}

fn command(project: &Project, args: &[&str]) -> Command {
    let mut command = project.larder().command(["compose"]);
    command.args(args).current_dir(project.context());
    command
}

/// Returns how often a step with `text` in its name ran.
fn count(run: &Run, text: &str) -> usize {
    let ran = run.steps();
    let ran = ran.iter().filter(|step| step.name.contains(text));
    ran.filter(|step| !step.is_cached()).count()
}

const SHOP: &str = "\
FROM busybox AS base
RUN echo shared > /shared
FROM base AS api
ARG GREETING=none
RUN echo $GREETING > /greeting
FROM base AS worker
COPY worker.txt /
";

#[test]
fn services_that_share_a_stage_build_it_once() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", SHOP),
        ("worker.txt", "w"),
        (
            "compose.yaml",
            r"
name: shop
services:
  api:
    build: {context: ., target: api, args: {GREETING: hello}, labels: {team: food}, tags: ['shop-api:v1']}
  worker: {build: {target: worker}, image: 'registry.local/worker:2'}
  db: {image: nothing-to-build}
",
        ),
    ]);
    let run = compose(&project, &["build"]).success();
    let run = run
        .says(" Image shop-api Building ")
        .says(" Image shop-api Built ");
    let run = run.says(" Image registry.local/worker:2 Built ");
    assert_eq!(count(&run, "echo shared"), 1, "{}", run.stderr);
    let again = compose(&project, &["build"]).success();
    assert_eq!(count(&again, "RUN "), 0, "{}", again.stderr);
    assert_eq!(count(&again, "COPY "), 0, "{}", again.stderr);

    let larder = project.larder();
    let labels = larder.run([
        "inspect",
        "--format",
        "{{json .Config.Labels}}",
        "shop-api:v1",
    ]);
    let labels: serde_json::Value = serde_json::from_str(&labels.success().text()).unwrap();
    assert_eq!(labels["com.docker.compose.project"], "shop");
    assert_eq!(labels["com.docker.compose.service"], "api");
    assert_eq!(labels["team"], "food");
    let greeting = larder
        .run(["run", "shop-api", "cat", "/greeting"])
        .success();
    assert_eq!(greeting.text(), "hello");

    // A flag wins over the file, and only what reads it runs again.
    let other = compose(&project, &["build", "--build-arg", "GREETING=bye", "api"]).success();
    assert_eq!(count(&other, "echo bye"), 1);
    assert_eq!(count(&other, "echo shared"), 0);
    assert_eq!(
        larder.run(["run", "shop-api", "cat", "/greeting"]).text(),
        "bye"
    );
    let anew = compose(&project, &["build", "--no-cache", "worker"]).success();
    assert_eq!(count(&anew, "echo shared"), 1);
    let nothing = compose(&project, &["build", "db"]).success();
    let _ = nothing.says("No services to build");
}

#[test]
fn a_service_reads_another_one_s_image() {
    let project = project!(Base::Busybox);
    project.write(&[
        (
            "compose.yaml",
            r"
name: chain
services:
  app:
    build:
      additional_contexts: [base=service:base, files=./files]
      dockerfile_inline: |
        FROM base
        COPY --from=files name /name
        RUN --mount=type=secret,id=tok cat /name /base /run/secrets/tok > /all
      secrets: [tok]
  base:
    build:
      dockerfile_inline: |
        FROM busybox
        RUN echo base > /base
secrets: {tok: {environment: TOKEN}}
",
        ),
        ("files/name", "name\n"),
    ]);
    let mut build = command(&project, &["build", "app"]);
    let run = Run::of(build.env("TOKEN", "s3cret")).success();
    assert!(!run.stderr.contains("s3cret"));
    assert!(
        !run.stderr.contains("Image chain-base Built"),
        "{}",
        run.stderr
    );
    let all = project
        .larder()
        .run(["run", "chain-app", "cat", "/all"])
        .success();
    assert_eq!(all.text(), "name\nbase\ns3cret");
    // What was not asked for has no name.
    let images = project
        .larder()
        .run(["images", "--format", "{{.Repository}}"])
        .text();
    assert!(!images.contains("chain-base"), "{images}");
}

#[test]
fn a_cache_in_a_registry_serves_an_empty_machine() {
    let project = project!(Base::Busybox);
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(error) => skip!("{error:#}"),
    };
    let file = r"
services:
  api:
    image: HOST/team/api
    build:
      args: {BUILDKIT_INLINE_CACHE: 1}
      cache_from: ['HOST/team/api:latest']
      dockerfile_inline: |
        FROM busybox
        RUN echo slow > /slow
";
    let file = file.replace("HOST", registry.host());
    project.write(&[("compose.yaml", &file)]);
    let first = compose(&project, &["build", "--push"]).success();
    assert_eq!(count(&first, "echo slow"), 1, "{}", first.stderr);

    let archive = Base::Busybox.archive().unwrap();
    let other = project
        .larder()
        .clone()
        .with_root(project.scratch().join("other"));
    let _ = other.run(["import", archive.to_str().unwrap()]).success();
    let mut build = other.command(["compose", "build"]);
    let second = Run::of(build.current_dir(project.context())).success();
    assert_eq!(count(&second, "echo slow"), 0, "{}", second.stderr);
}

#[test]
fn the_definition_for_bake_says_the_same() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "compose.yaml",
        "name: p\nservices: {a.b: {build: {context: ., target: x, args: [A=1]}}}\n",
    )]);
    let printed = compose(&project, &["build", "--print"]).success();
    let definition: serde_json::Value = serde_json::from_str(&printed.text()).unwrap();
    assert_eq!(definition["group"]["default"]["targets"][0], "a_b");
    let target = &definition["target"]["a_b"];
    assert_eq!(target["args"]["A"], "1");
    assert_eq!(target["target"], "x");
    assert_eq!(target["tags"][0], "p-a.b");
}

#[test]
fn dockerfiles_are_checked_in_place_of_a_build() {
    let project = project!(Base::Busybox);
    project.write(&[(
        "compose.yaml",
        "services:\n  good: {build: {dockerfile_inline: 'FROM busybox'}}\n  odd: {build: {dockerfile_inline: 'from busybox AS Odd'}}\n",
    )]);
    let good = compose(&project, &["build", "--check", "good"]).success();
    assert!(good.text().contains("no warnings found"), "{}", good.text());
    let odd = compose(&project, &["build", "--check"]).exit(1);
    assert!(odd.text().contains("StageNameCasing"), "{}", odd.text());
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_key() {
    let project = project!(Base::Busybox);
    for (file, expect) in [
        (
            "services:\n  a:\n    build: {context: ., ssh: [default]}\n",
            "compose.yaml:3: services.a.build.ssh: `--ssh`: agent `default`: invalid empty ssh agent socket",
        ),
        (
            "services:\n  a:\n    build: {context: missing}\n",
            "compose.yaml:3: services.a.build.context: unable to prepare context: path",
        ),
        (
            "services:\n  a:\n    build: {platforms: [linux/amd64, a/b/c/d]}\n",
            "services.a.build.platforms: `a/b/c/d` is not a platform",
        ),
        (
            "services:\n  a:\n    build: {cache_to: ['type=nope']}\n",
            "services.a.build.cache_to: `type=nope`",
        ),
        (
            "services:\n  a:\n    build: {entitlements: [nope]}\n",
            "services.a.build.entitlements: unknown entitlement key `nope`",
        ),
        (
            "services:\n  a:\n    image: 'Bad Name'\n    build: .\n",
            "services.a.build.image: invalid reference format",
        ),
        (
            "services:\n  a:\n    build: .\n    nope: 1\n",
            "compose.yaml:4: services.a: additional properties 'nope' not allowed",
        ),
        (
            "services:\n  a:\n    image: ${X:?set X}\n",
            "compose.yaml:3: services.a.image: required variable `X`",
        ),
    ] {
        project.write(&[("compose.yaml", file)]);
        let _ = compose(&project, &["build"]).exit(1).says(expect);
    }
    project.write(&[(
        "compose.yaml",
        "services: {a: {build: {dockerfile_inline: \"FROM busybox\\nRUN exit 7\"}}}",
    )]);
    let failed = compose(&project, &["build"]).exit(1);
    let _ = failed.says("did not complete successfully: exit code: 7");
    fs::remove_file(project.context().join("compose.yaml")).unwrap();
    let _ = compose(&project, &["config"])
        .exit(1)
        .says("no configuration file provided");
}

#[test]
fn the_project_is_shown_as_understood() {
    let project = project!(Base::Busybox);
    project.write(&[
        (".env", "TAG=7\n"),
        (
            "compose.yaml",
            "services: {b: {image: 'x:$TAG', profiles: [p]}, a: {build: ., volumes: ['v:/v']}}\nvolumes: {v: }\n",
        ),
    ]);
    let text = |args: &[&str]| compose(&project, args).success().text();
    assert_eq!(text(&["config", "--services"]), "a");
    assert_eq!(text(&["--profile", "p", "config", "--services"]), "a\nb");
    assert_eq!(
        text(&["--profile", "*", "config", "--images"]),
        "context-a\nx:7"
    );
    assert_eq!(text(&["config", "--volumes"]), "v");
    assert_eq!(text(&["config", "--profiles"]), "p");
    assert_eq!(text(&["config", "-q"]), "");
    let json = text(&["-p", "named", "config", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["name"], "named");
    assert_eq!(json["volumes"]["v"]["name"], "named_v");
    let raw = text(&["--profile=p", "config", "--no-interpolate"]);
    assert!(raw.contains("x:$TAG"), "{raw}");
}

#[test]
fn the_example_s_file_is_understood() {
    let project = project!(Base::Busybox);
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/smartdiet");
    let mut config = project.larder().command(["compose", "config"]);
    let shown = Run::of(config.current_dir(&example)).success();
    // What is shown is a compose file that means the same.
    project.write(&[("compose.yaml", &shown.text())]);
    let again = compose(&project, &["config"]).success();
    assert_eq!(again.text(), shown.text());
    let images = compose(&project, &["config", "--images"]).success().text();
    assert_eq!(images, "smartdiet-api\nsmartdiet-worker");
}

#[test]
fn pushed_images_are_in_the_registry() {
    let project = project!(Base::Busybox);
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(error) => skip!("{error:#}"),
    };
    let image = format!("{}/team/pushed:1", registry.host());
    project.write(&[(
        "compose.yaml",
        &format!(
            "services: {{a: {{image: '{image}', build: {{dockerfile_inline: 'FROM busybox'}}}}}}"
        ),
    )]);
    let _ = compose(&project, &["build", "--push"]).success();
    let manifest = larder_testkit::request(
        registry.host(),
        "GET",
        "/v2/team/pushed/manifests/1",
        &[("Accept", "application/vnd.oci.image.index.v1+json")],
        b"",
    );
    assert_eq!(manifest.unwrap().status, 200);
    let archive = project.scratch().join("saved.tar");
    let _ = project
        .larder()
        .run(["save", "-o", archive.to_str().unwrap(), &image])
        .success();
    assert!(OciArchive::open(&archive).is_ok());
}
