//! Base images from a registry: mirrors, credentials, verification, and no network without need.
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use fs_err as fs;
use larder_oci::{Digest, Platform, media_type};
use larder_testkit::{
    Base, Fault, FaultProxy, MadeImage, On, Project, RegistryOptions, Run, WebAnswer, WebServer,
    install, project, skip,
};

use crate::{Setup, image, layer, registry};

#[test]
fn a_mirror_stands_in_for_docker_hub() {
    let setup = registry!().mirroring_docker_hub();
    let archive = match Base::Busybox.archive() {
        Ok(archive) => archive,
        Err(error) => skip!("no base image: {error:#}"),
    };
    let pushed = setup
        .registry
        .push_archive(&archive, "library/busybox", "latest")
        .unwrap();
    let dockerfile = "FROM busybox\nRUN echo pulled > /pulled\n";
    let run = setup.build(dockerfile, &["-t", "made"]).success();
    let pinned = format!(
        "[1/2] FROM docker.io/library/busybox:latest@{}",
        pushed.digest
    );
    let step = run.step(&pinned);
    let arrived = |line: &String| line.starts_with("sha256:") && line.ends_with(" done");
    assert!(step.lines.iter().any(arrived), "{:?}", step.lines);
    let made = setup.larder.run(["run", "made", "cat", "/pulled"]);
    assert_eq!(made.success().text(), "pulled");
    // From here on, the registry is not needed.
    let Setup {
        registry,
        scratch,
        larder,
    } = setup;
    drop(registry);
    let mut command = larder.command(["build", "--progress", "plain"]);
    let again = Run::of(command.arg(scratch.join("context"))).success();
    assert_eq!(again.cached_count(), 2, "{}", again.stderr);
    let mut command = larder.command(["build", "--progress", "plain", "--pull"]);
    let _ = Run::of(command.arg(scratch.join("context")))
        .exit(1)
        .says("ERROR: failed to build: failed to solve: busybox: failed to resolve source metadata for docker.io/library/busybox:latest: ");
}

#[test]
fn an_image_that_is_nowhere_is_shown_where_it_is_asked_for() {
    let setup = registry!();
    let host = setup.registry.host();
    let dockerfile = format!("FROM scratch AS a\nFROM {host}/team/nothing:1\n");
    let run = setup.build(&dockerfile, &[]).exit(1);
    let expected = format!(
        "\
Dockerfile:2
--------------------
   1 |     FROM scratch AS a
   2 | >>> FROM {host}/team/nothing:1
   3 |     
--------------------
ERROR: failed to build: failed to solve: {host}/team/nothing:1: failed to resolve source metadata for {host}/team/nothing:1: "
    );
    assert!(run.stderr.contains(&expected), "{}", run.stderr);
    assert!(
        run.stderr.trim_end().ends_with("not found"),
        "{}",
        run.stderr
    );
}

#[test]
fn credentials_come_from_docker_login() {
    let options = RegistryOptions {
        basic_auth: true,
        ..RegistryOptions::default()
    };
    let setup = match Setup::new(&options) {
        Ok(setup) => setup,
        Err(error) => skip!("no registry: {error:#}"),
    };
    let host = setup.registry.host().to_owned();
    image("secret", b"x")
        .push(&setup.registry, "team/private", "1")
        .unwrap();
    let dockerfile = format!("FROM {host}/team/private:1\nCOPY Dockerfile /\n");
    let _ = setup
        .build(&dockerfile, &[])
        .exit(1)
        .says("pull access denied")
        .says("\nhint: log in with `larder login`");
    let docker_config = setup.scratch.join("docker");
    fs::create_dir(&docker_config).unwrap();
    let log_in = |auth: &str| {
        let json = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{auth}\"}}}}}}");
        fs::write(docker_config.join("config.json"), json).unwrap();
    };
    let setup = Setup {
        larder: setup
            .larder
            .clone()
            .with_env("DOCKER_CONFIG", &docker_config),
        ..setup
    };
    log_in("YWxpOndyb25n"); // ali:wrong
    let wrong = setup.build(&dockerfile, &[]).exit(1);
    for text in ["wrong", "YWxp"] {
        assert!(!wrong.stderr.contains(text), "{}", wrong.stderr);
    }
    log_in("YWxpOm9wZW4gc2VzYW1l");
    let _ = setup.build(&dockerfile, &[]).success();
}

#[test]
fn layers_are_verified() {
    let setup = registry!();
    let host = setup.registry.host().to_owned();
    let made = image("big", &vec![b'x'; 100_000]);
    made.push(&setup.registry, "team/app", "1").unwrap();
    let digest = made.layer_digest(0);
    let file = setup.blob_file(&digest);
    let good = fs::read(&file).unwrap();
    let dockerfile = format!("FROM {host}/team/app:1\nCOPY Dockerfile /\n");
    let mut flipped = good.clone();
    flipped[50_000] ^= 1;
    for (name, bytes) in [
        ("flipped", flipped),
        ("cut", good[..good.len() / 2].to_vec()),
        ("longer", [&good[..], b"more"].concat()),
    ] {
        fs::write(&file, bytes).unwrap();
        let run = setup.build(&dockerfile, &[]).exit(1);
        let error = run.stderr.lines().rfind(|line| line.starts_with("ERROR: "));
        assert!(
            error.is_some_and(|error| error.contains(digest.as_str())),
            "{name}: {}",
            run.stderr
        );
        assert!(run.stderr.contains("\nDockerfile:1\n"), "{}", run.stderr);
    }
    fs::write(&file, good).unwrap();
    let _ = setup.build(&dockerfile, &[]).success();
}

/// A layer is unpacked while it arrives: what comes of it must be the layer's, however it arrives.
#[test]
fn a_layer_that_does_not_arrive_at_once_is_unpacked_as_it_is() {
    let setup = registry!();
    let mut content = Vec::new();
    while content.len() < 6 << 20 {
        content.extend_from_slice(Digest::sha256(content.len().to_le_bytes()).hex().as_bytes());
    }
    let made = image("large", &content);
    made.push(&setup.registry, "library/app", "1").unwrap();
    let layer = format!("/blobs/{}", made.layer_digest(0));
    let mirror = FaultProxy::start(setup.registry.host()).unwrap();
    let config = setup.scratch.join("larder.toml");
    let text = format!(
        "[registry.\"docker.io\"]\nmirrors = [\"{}\", \"{}\"]\n",
        mirror.host(),
        setup.registry.host()
    );
    fs::write(&config, text).unwrap();
    let cut = || vec![Fault::CutAnswer(2_000_000)];
    for (name, faults) in [
        ("at once", Vec::new()),
        ("in two parts", cut()),
        ("wrong, then from elsewhere", vec![Fault::FlipBit]),
        (
            "a part, then not at all",
            [cut(), vec![Fault::answer(404)]].concat(),
        ),
        ("a part, then wrong", [cut(), vec![Fault::FlipBit]].concat()),
    ] {
        mirror.forget();
        for (count, fault) in faults.into_iter().enumerate() {
            mirror.inject(On::new("GET", layer.clone()).after(count), fault);
        }
        let root = setup.scratch.join(name.replace(' ', "-"));
        let larder = setup.larder.clone().with_root(&root);
        let larder = larder.with_env("LARDER_CONFIG", &config);
        let tree = setup.scratch.join("tree");
        let _ = fs::remove_dir_all(&tree);
        let project = setup
            .scratch
            .context("context", &[("Dockerfile", "FROM app:1\n")]);
        let output = format!("type=local,dest={}", tree.display());
        let mut command = larder.command(["build", "--progress", "plain", "-o", &output]);
        let _ = Run::of(command.arg(project)).success();
        assert!(mirror.count("GET", &layer) > 0, "{name}");
        let arrived = fs::read(tree.join("large")).unwrap();
        assert!(arrived == content, "{name}: {} bytes", arrived.len());
    }
}

#[test]
fn a_config_that_does_not_fit_its_layers_is_refused() {
    let setup = registry!();
    let host = setup.registry.host().to_owned();
    let made = image("a", b"a");
    made.push(&setup.registry, "team/app", "1").unwrap();
    let other = image("b", b"b");
    other.push(&setup.registry, "team/app", "2").unwrap();
    // The layer of one with the config of the other: the diff ID is wrong.
    let manifest = format!("/v2/team/app/manifests/{}", made.descriptor().digest);
    let accept = [("Accept", media_type::MANIFEST)];
    let bytes = setup.registry.request("GET", &manifest, &accept, &[]);
    let text = String::from_utf8(bytes.unwrap().body).unwrap();
    let (ours, theirs) = (made.layer_digest(0), other.layer_digest(0));
    let mixed = text.replace(ours.as_str(), theirs.as_str());
    setup
        .registry
        .push_manifest("team/app", "mixed", media_type::MANIFEST, mixed.as_bytes())
        .unwrap();
    let dockerfile = format!("FROM {host}/team/app:mixed\nCOPY Dockerfile /\n");
    let run = setup.build(&dockerfile, &[]).exit(1);
    let expected = format!("the archive is `{theirs}`");
    let _ = run
        .says(&format!("cannot apply layer `{ours}`"))
        .says(&expected);
}

#[test]
fn pull_asks_for_a_tag_anew() {
    let setup = registry!();
    let host = setup.registry.host().to_owned();
    let push = |content: &[u8]| {
        let made = image("version", content);
        made.push(&setup.registry, "team/app", "latest").unwrap();
    };
    let dockerfile = format!("FROM {host}/team/app\nCOPY Dockerfile /\n");
    let version = |args: &[&str]| {
        let tree = setup.scratch.join("tree");
        let _ = fs::remove_dir_all(&tree);
        let output = format!("type=local,dest={}", tree.display());
        let run = setup.build(&dockerfile, &[args, &["-o", &output]].concat());
        let run = run.success();
        let text = fs::read_to_string(tree.join("version")).unwrap();
        (text, run.cached_count())
    };
    push(b"one");
    assert_eq!(version(&[]), ("one".to_owned(), 0));
    push(b"two");
    assert_eq!(
        version(&[]),
        ("one".to_owned(), 2),
        "known, so not asked for"
    );
    assert_eq!(version(&["--pull"]), ("two".to_owned(), 0));
    assert_eq!(version(&[]), ("two".to_owned(), 2), "what was pulled last");
    assert_eq!(version(&["--pull"]), ("two".to_owned(), 2), "nothing new");
}

#[test]
fn an_index_gives_the_image_for_this_machine() {
    let setup = registry!();
    let host = setup.registry.host().to_owned();
    let other = |text: &str| -> Platform { text.parse().unwrap() };
    let foreign = match Platform::host().architecture.as_str() {
        "s390x" => "linux/ppc64le",
        _ => "linux/s390x",
    };
    let images = [
        MadeImage::for_platform(other(foreign), &[layer("for", b"foreign")]),
        MadeImage::for_platform(Platform::host(), &[layer("for", b"host")]),
    ];
    for (number, made) in images.iter().enumerate() {
        made.push(&setup.registry, "team/app", &format!("part{number}"))
            .unwrap();
    }
    let push = |tag: &str, images: &[MadeImage]| {
        let manifests: Vec<_> = images.iter().map(MadeImage::descriptor).collect();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::INDEX,
            "manifests": manifests,
        });
        let bytes = serde_json::to_vec(&index).unwrap();
        setup
            .registry
            .push_manifest("team/app", tag, media_type::INDEX, &bytes)
            .unwrap()
    };
    let index = push("both", &images);
    let tree = setup.scratch.join("tree");
    let output = format!("type=local,dest={}", tree.display());
    let dockerfile = format!("FROM {host}/team/app:both\nCOPY Dockerfile /\n");
    let run = setup.build(&dockerfile, &["-o", &output]).success();
    let _ = run.step(&format!("FROM {host}/team/app:both@{}", index.digest));
    assert_eq!(fs::read_to_string(tree.join("for")).unwrap(), "host");
    push("foreign", &images[..1]);
    let dockerfile = format!("FROM {host}/team/app:foreign\nCOPY Dockerfile /\n");
    let _ = setup
        .build(&dockerfile, &[])
        .exit(1)
        .says("no match for platform")
        .says(&format!("hint: the image is for {foreign}"));
}

/// Runs larder's `command` and returns the lines of its calls of `socket` and `connect` with an
/// address of a network.
fn network_calls(project: &Project, command: &Command) -> Vec<String> {
    let log = project.scratch().join("strace");
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-e", "trace=socket,connect", "-o"])
        .arg(&log)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            traced.env(name, value);
        }
    }
    let _ = Run::of(&mut traced).success();
    let text = fs::read_to_string(&log).unwrap();
    text.lines()
        .filter(|line| line.contains("AF_INET") || line.contains("AF_NETLINK"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_build_with_local_inputs_opens_no_socket() {
    let project = project!(Base::Busybox);
    if let Err(error) = install(&["strace"]) {
        skip!("no strace: {error:#}");
    }
    project.write(&[
        ("Dockerfile", "FROM busybox\nCOPY a /\nRUN cat /a > /b\n"),
        ("a", "a"),
    ]);
    for name in ["first", "second"] {
        let calls = network_calls(&project, &project.command(&["-t", "made"]));
        assert!(calls.is_empty(), "{name} build: {calls:#?}");
    }
    // The trace would show them.
    project.write(&[("Dockerfile", "FROM 127.0.0.1:9/nothing\n")]);
    let log = project.scratch().join("strace");
    let command = project.command(&[]);
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-e", "trace=socket,connect", "-o"])
        .arg(&log)
        .arg(command.get_program())
        .args(command.get_args());
    let _ = Run::of(&mut traced).exit(1);
    assert!(fs::read_to_string(&log).unwrap().contains("AF_INET"));
}

#[test]
fn an_interrupt_ends_the_wait_for_a_manifest() {
    let project = project!(Base::Busybox);
    let scratch = project.scratch();
    for verb in ["pull", "build"] {
        let barrier = Arc::new(Barrier::new(2));
        let at_server = Arc::clone(&barrier);
        let server = WebServer::start(move |request, _| match request.target.as_str() {
            "/v2/" => WebAnswer::status(200),
            // Its end never comes.
            _ => WebAnswer::json("{}").meet_after(1, &at_server),
        });
        let name = format!("{}/hangs:1", server.host());
        let context = scratch.context(verb, &[("Dockerfile", &format!("FROM {name}\n"))]);
        let argument = match verb {
            "pull" => name.into(),
            _ => context.into_os_string(),
        };
        let mut command = project.larder().command([verb]);
        let mut child = command
            .arg(argument)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while !server.requests().iter().any(|it| it.target.ends_with("/1")) {
            std::thread::sleep(Duration::from_millis(10));
            assert_eq!(child.try_wait().unwrap(), None, "{verb}");
        }
        let pid = child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        barrier.wait();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.ends_with("context canceled\n"), "{said}");
    }
}
