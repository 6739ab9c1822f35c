//! What configuration files change.

use fs_err as fs;
use larder_testkit::{Base, Run, project, skip};

#[test]
fn proxies_of_docker_s_configuration_reach_steps_and_no_key() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", "FROM busybox\nRUN echo \"by $http_proxy\"\n")]);
    let directory = project.scratch().join("docker");
    fs::create_dir(&directory).unwrap();
    let build = |proxy: &str| -> Run {
        let config = format!(r#"{{"proxies": {{"default": {{"httpProxy": "{proxy}"}}}}}}"#);
        fs::write(directory.join("config.json"), config).unwrap();
        let mut command = project.command(&[]);
        Run::of(command.env("DOCKER_CONFIG", &directory)).success()
    };
    let _ = build("http://a.invalid:1").says("by http://a.invalid:1");
    assert_eq!(build("http://b.invalid:2").cached_count(), 2);
}

#[test]
fn policies_of_the_configuration_prune_after_a_build() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", "FROM busybox\nRUN echo 1 > /f\n")]);
    let config = project.scratch().join("larder.toml");
    let build = |policy: &str| -> Run {
        fs::write(&config, policy).unwrap();
        let mut command = project.command(&[]);
        Run::of(command.env("LARDER_CONFIG", &config)).success()
    };
    let keeps = "[[worker.oci.gcpolicy]]\nfilters = [\"type==source.local\"]\n";
    let prunes_all = "[[worker.oci.gcpolicy]]\n";
    let _ = build(keeps);
    assert_eq!(build(prunes_all).cached_count(), 2);
    let again = build("[worker.oci]\nshelves = 3\n");
    let _ = again
        .says("not cached: its result was pruned")
        .says("WARNING: the configuration's `worker.oci.shelves` is unknown to larder");
}

#[test]
fn the_snapshotter_of_a_state_directory_is_chosen_once() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", "FROM busybox\nRUN echo 1 > /f\n")]);
    let config = project.scratch().join("larder.toml");
    let build = |root: &str, snapshotter: &str| -> Run {
        fs::write(
            &config,
            format!("[worker.oci]\nsnapshotter = \"{snapshotter}\"\n"),
        )
        .unwrap();
        let larder = project
            .larder()
            .clone()
            .with_root(project.scratch().join(root))
            .with_env("LARDER_CONFIG", &config);
        let archive = Base::Busybox.archive().unwrap();
        let imported = larder.run(["import".as_ref(), archive.as_os_str()]);
        if imported.code != Some(0) {
            return imported;
        }
        Run::of(larder.command(["build"]).arg(project.context()))
    };
    for (made, other) in [("native", "overlayfs"), ("overlayfs", "native")] {
        let _ = build(made, made).success();
        let _ = build(made, "auto").success();
        let refusal = format!("was made with the snapshotter `{made}`");
        let _ = build(made, other).exit(1).says(&refusal);
    }
}

#[test]
fn a_step_may_lay_an_overlay_upon_layers_in_directories() {
    let project = project!(Base::Busybox);
    project.write(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY a /a/\nRUN --security=insecure mkdir /b /m && \
             mount -t overlay -o lowerdir=/a:/b none /m && cat /m/a\n",
        ),
        ("a", "seen through"),
    ]);
    let config = project.scratch().join("larder.toml");
    fs::write(&config, "[store]\nlayers = \"directory\"\n").unwrap();
    let mut command = project.command(&["--allow", "security.insecure"]);
    let run = Run::of(command.env("LARDER_CONFIG", &config)).success();
    assert_eq!(run.step("RUN").output(), ["seen through"]);
}

#[test]
fn layers_are_what_the_configuration_says() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", "FROM busybox\nCOPY a /a\nRUN cat a > b\n"),
        ("a", "text"),
    ]);
    let config = project.scratch().join("larder.toml");
    let larder = project.larder().clone();
    let larder = larder.with_env("LARDER_CONFIG", &config);
    let set = |text: &str| fs::write(&config, text).unwrap();
    let kinds = || {
        let snapshots = fs::read_dir(larder.root().join("snapshots")).unwrap();
        let is_file = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path().is_file();
        let (images, directories): (Vec<bool>, Vec<bool>) =
            snapshots.map(is_file).partition(|is_file| *is_file);
        (images.len(), directories.len())
    };
    let build = || Run::of(larder.command(["build", "-t", "i"]).arg(project.context()));

    set("[store]\nlayers = \"directory\"\n");
    let info = larder.run(["info"]).success();
    let said = "Layers:          directory (by the configuration)";
    assert!(info.text().contains(said), "{}", info.text());
    let _ = build().success();
    assert_eq!(kinds(), (0, 3));

    set("[store]\nlayers = \"erofs\"\n[worker.oci]\nsnapshotter = \"native\"\n");
    let native = larder.clone().with_root(project.scratch().join("native"));
    let refused = native.run(["du"]).exit(1);
    let _ = refused.says("layers can't be EROFS images here: snapshots are copies");

    set("[store]\nlayers = \"erofs\"\n");
    let info = larder.run(["info"]);
    if info.code != Some(0) {
        skip!("{}", info.stderr);
    }
    assert_eq!(
        build().success().cached_count(),
        3,
        "what is there serves on"
    );
    assert_eq!(kinds(), (0, 3));
    fs::write(project.context().join("a"), "other").unwrap();
    let _ = build().success();
    assert_eq!(kinds(), (1, 4), "RUN leaves a directory");
    let text = larder.run(["run", "i", "cat", "/a", "/b"]).success();
    assert_eq!(text.text(), "otherother");

    set("[store]\nlayers = \"directory\"\n");
    assert_eq!(build().success().cached_count(), 3, "it can be read");
    let archive = larder.run(["save", "i"]).success();
    assert!(archive.stdout.len() > 1 << 20);

    // As by a kernel that can't mount it.
    let trial = larder.root().join("layers");
    let answer = fs::read_to_string(&trial).unwrap();
    let kernel = answer.strip_suffix("erofs\n").unwrap();
    fs::write(&trial, format!("{kernel}no images today\n")).unwrap();
    set("");
    let info = larder.run(["info"]).success();
    let said = "directory (no images today)";
    assert!(info.text().contains(said), "{}", info.text());
    assert_eq!(build().success().cached_count(), 3, "it is no miss");
    assert_eq!(kinds(), (1, 4), "a hit needs no files");
    let text = larder.run(["run", "i", "cat", "/a", "/b"]).success();
    assert_eq!(text.text(), "otherother");
    assert_eq!(kinds(), (1, 5), "the image was unpacked");
    let again = larder.run(["save", "i"]).success();
    assert!(again.stdout == archive.stdout);
    fs::write(
        project.context().join("Dockerfile"),
        "FROM busybox\nCOPY a /a\nRUN cat a > c\n",
    )
    .unwrap();
    let _ = build().success();
    assert_eq!(kinds(), (1, 6), "once is enough");
}
