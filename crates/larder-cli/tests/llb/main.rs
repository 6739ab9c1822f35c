//! `larder llb`, and `larder build --print=llb`: definitions that no Dockerfile says.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

mod exec;
mod file;
mod graph;
mod meta;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use larder_llb::pb::file_action::Action;
use larder_llb::pb::op::Op;
use larder_llb::{Message as _, pb};
use larder_oci::Digest;
use larder_testkit::{Base, EntryKind, Registry, project, skip};

use graph::{
    Graph, State, archive, bind, build, collect, copy, feed, files, layers, mkdir, mkfile, rm, tree,
};

#[test]
fn merges_and_diffs_are_exported_with_the_layers_that_they_are_made_of() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let lower = graph.sh(&base, "mkdir /d && echo a > /d/a && echo b > /d/b");
    let upper = graph.sh(&lower, "rm -r /d && mkdir /d && echo c > /d/c");
    let top = graph.sh(&upper, "echo top > /top");
    let other = graph.sh(&base, "mkdir /d && echo b > /d/b && echo kept > /d/kept");
    let change = graph.diff(Some(&lower), Some(&top));
    let merged = graph.merge(&[&other, &change]);

    let whole = layers(&archive(&project, &graph.of(&top)));
    let other_layers = layers(&archive(&project, &graph.of(&other)));
    let of_change = archive(&project, &graph.of(&change));
    assert_eq!(layers(&of_change), whole[whole.len() - 2..]);
    let paths = |layer: usize| -> Vec<String> {
        let entries = of_change.layers().unwrap().remove(layer);
        entries.into_iter().map(|entry| entry.path).collect()
    };
    assert_eq!(paths(0), ["d/", "d/.wh.a", "d/.wh.b", "d/c"]);

    let both = layers(&archive(&project, &graph.of(&merged)));
    assert_eq!(both, [&other_layers[..], &layers(&of_change)].concat());

    // The step sees what an image with these layers holds.
    let list = graph.sh(&merged, "find /d /top | sort > /list");
    let list = graph.file(vec![(-1, 0, 0, copy("/list", "/"))], &[&list]);
    assert_eq!(
        files(&project, &graph.of(&list)),
        tree(&[("list", "/d\n/d/c\n/d/kept\n/top\n")])
    );
    let run = build(&project, &[], &graph.of(&list)).success();
    assert!(run.stderr.contains("CACHED"), "{}", run.stderr);
    assert!(run.stderr.contains("diff ("), "{}", run.stderr);
}

#[test]
fn unrelated_trees_have_differences_and_what_is_equal_has_none() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let a = graph.file(
        vec![
            (-1, -1, -1, mkfile("/same", "x")),
            (0, -1, 0, mkfile("/gone", "y")),
        ],
        &[],
    );
    let b = graph.file(
        vec![
            (-1, 0, -1, copy("/same", "/")),
            (1, -1, 0, mkfile("/new", "z")),
        ],
        &[&a],
    );
    let difference = graph.diff(Some(&a), Some(&b));
    let image = archive(&project, &graph.of(&difference));
    let entries = image.layers().unwrap();
    let paths: Vec<&str> = entries[0].iter().map(|entry| &*entry.path).collect();
    assert_eq!((entries.len(), &paths[..]), (1, &[".wh.gone", "new"][..]));
    assert_eq!(
        files(&project, &graph.of(&difference)),
        tree(&[("new", "z")])
    );

    let base = graph.file(vec![(-1, -1, 0, mkfile("/gone", "other"))], &[]);
    let merged = graph.merge(&[&base, &difference]);
    assert_eq!(files(&project, &graph.of(&merged)), tree(&[("new", "z")]));

    for nothing in [
        graph.diff(None, None),
        graph.diff(Some(&a), Some(&a)),
        graph.merge(&[]),
    ] {
        let nothing = graph.of(&nothing);
        assert_eq!(files(&project, &nothing), tree(&[]));
        assert_eq!(layers(&archive(&project, &nothing)), []);
    }
    let upper = graph.diff(None, Some(&a));
    assert_eq!(
        layers(&archive(&project, &graph.of(&upper))),
        layers(&archive(&project, &graph.of(&a)))
    );
    let removed = graph.diff(Some(&a), None);
    let merged = graph.merge(&[&b, &removed]);
    assert_eq!(files(&project, &graph.of(&merged)), tree(&[("new", "z")]));
}

#[test]
fn a_step_has_an_output_for_each_mount_that_asks_for_one() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let seed = graph.file(
        vec![
            (-1, -1, -1, mkdir("/sub")),
            (0, -1, 0, mkfile("/sub/seed", "seed")),
        ],
        &[],
    );
    let empty = graph.diff(None, None);
    // A mount in another comes after it, whatever the order is.
    let command = "echo new > /out/new && ! touch /ro/x 2>/dev/null && echo s > /scratch/s \
                   && echo d > /dropped/d && cat /dropped/sub/in/deep > /deep && test -e /a/b/seed";
    let deep = graph.file(vec![(-1, -1, 0, mkfile("/deep", "deep"))], &[]);
    let mounts = [
        (&deep, bind("/dropped/sub/in", -1)),
        (&seed, bind("/out", 1)),
        (
            &seed,
            pb::Mount {
                readonly: true,
                ..bind("/ro", 2)
            },
        ),
        (&empty, bind("/scratch", 3)),
        (&seed, bind("/dropped", -1)),
        (
            &seed,
            pb::Mount {
                selector: "sub".to_owned(),
                readonly: true,
                ..bind("a/b", -1)
            },
        ),
    ];
    let step = graph.run(&base, command, &mounts, |_| {});
    let output = |index| State {
        index,
        ..step.clone()
    };
    let graph = &graph;
    let of = |index| files(&project, &graph.of(&output(index)));
    assert_eq!(
        of(1),
        tree(&[("sub", ""), ("sub/seed", "seed"), ("new", "new\n")])
    );
    assert_eq!(of(2), tree(&[("sub", ""), ("sub/seed", "seed")]));
    assert_eq!(of(3), tree(&[("s", "s\n")]));
    assert_eq!(of(0)["deep"], "deep");
}

#[test]
fn a_root_that_is_read_only_stays_as_it_is() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let small = graph.file(vec![(-1, 0, 0, copy("/bin", "/bin"))], &[&base]);
    let empty = graph.diff(None, None);
    let command = "! touch /x 2>/dev/null && echo out > /out/o";
    let step = graph.run(&small, command, &[(&empty, bind("/out", 0))], |exec| {
        exec.mounts[0].readonly = true;
        exec.mounts[0].output = -1;
    });
    assert_eq!(files(&project, &graph.of(&step)), tree(&[("o", "out\n")]));
    let step = graph.run(&small, command, &[(&empty, bind("/out", 1))], |exec| {
        exec.mounts[0].readonly = true;
    });
    let found = files(&project, &graph.of(&step));
    assert!(found.contains_key("bin/sh"), "{found:?}");
    assert!(
        !found.contains_key("x") && !found.contains_key("out"),
        "{found:?}"
    );
}

#[test]
fn steps_say_which_codes_are_no_failure_and_secrets_may_be_left_out() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let secret = |optional| pb::SecretEnv {
        id: "token".to_owned(),
        name: "TOKEN".to_owned(),
        optional,
    };
    let command = "echo \"[${TOKEN-unset}]\" > /t; exit 7";
    let step = graph.run(&base, command, &[], |exec| {
        exec.secretenv.push(secret(true));
        exec.meta.as_mut().unwrap().valid_exit_codes = vec![0, 7];
    });
    let read = graph.file(vec![(-1, 0, 0, copy("/t", "/"))], &[&step]);
    assert_eq!(files(&project, &graph.of(&read)), tree(&[("t", "[]\n")]));
    let step = graph.run(&base, command, &[], |exec| {
        exec.meta.as_mut().unwrap().valid_exit_codes = vec![8];
    });
    let _ = build(&project, &[], &graph.of(&step))
        .exit(1)
        .says("did not complete successfully: exit code: 7");
    let step = graph.run(&base, "test \"$TOKEN\" = s3cret", &[], |exec| {
        exec.secretenv.push(secret(false));
    });
    let definition = graph.of(&step);
    let _ = build(&project, &[], &definition).exit(1).says("token");
    let file = project.scratch().join("secret");
    fs::write(&file, "s3cret").unwrap();
    let flag = format!("id=token,src={}", file.display());
    let _ = build(&project, &["--secret", &flag], &definition).success();
}

#[test]
fn file_ops_have_many_actions_and_outputs() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let symlink = Action::Symlink(pb::FileActionSymlink {
        oldpath: "a.txt".to_owned(),
        newpath: "/link".to_owned(),
        timestamp: -1,
        ..pb::FileActionSymlink::default()
    });
    // No input, so that the results of actions are counted from 0.
    let made = graph.file(
        vec![
            (-1, -1, -1, mkfile("/a.txt", "a")),
            (0, -1, -1, mkfile("/b.txt", "b")),
            (1, -1, 1, mkdir("/d/e")),
            (2, -1, -1, symlink),
            (3, -1, -1, rm("/b*", false)),
            (4, -1, -1, rm("/none", true)),
            // What an earlier action left is a source, too.
            (5, 1, 0, copy("/b.txt", "/copied/")),
        ],
        &[],
    );
    assert_eq!(
        files(&project, &graph.of(&made)),
        tree(&[
            ("a.txt", "a"),
            ("d", ""),
            ("d/e", ""),
            ("link", "-> a.txt"),
            ("copied", ""),
            ("copied/b.txt", "b"),
        ])
    );
    let second = State { index: 1, ..made };
    assert_eq!(
        files(&project, &graph.of(&second)),
        tree(&[("a.txt", "a"), ("b.txt", "b"), ("d", ""), ("d/e", "")])
    );
    let missing = graph.file(vec![(0, -1, 0, rm("/none", false))], &[&second]);
    let _ = build(&project, &[], &graph.of(&missing))
        .exit(1)
        .says("none");
}

#[test]
fn builds_are_nested() {
    let project = project!(Base::Busybox);
    let mut inner = Graph::default();
    let base = inner.busybox();
    let made = inner.sh(&base, "echo inner > /made");
    let made = inner.file(vec![(-1, 0, 0, copy("/made", "/"))], &[&made]);
    let definition = inner.of(&made);

    let mut graph = Graph::default();
    let file = graph.file(vec![(-1, -1, 0, mkfile("/build.llb", definition))], &[]);
    let built = graph.build(&file, "/build.llb");
    let outer = graph.file(vec![(0, -1, 0, mkfile("/outer", "outer"))], &[&built]);
    let definition = graph.of(&outer);
    assert_eq!(
        files(&project, &definition),
        tree(&[("made", "inner\n"), ("outer", "outer")])
    );
    let again = build(&project, &[], &definition).success();
    assert!(!again.stderr.contains("echo inner"), "{}", again.stderr);

    for (content, name, expected) in [
        (&b"no definition"[..], "/x", "`/x` is no LLB definition"),
        (b"", "/y", "cannot open `/y`"),
        (b"", "/", "is not a regular file"),
    ] {
        let file = graph.file(vec![(-1, -1, 0, mkfile("/x", content))], &[]);
        let built = graph.build(&file, name);
        let _ = build(&project, &[], &graph.of(&built))
            .exit(1)
            .says(expected);
    }
}

#[test]
fn a_build_that_is_nested_in_itself_ends() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let local = graph.source("local://here");
    let built = graph.build(&local, "self");
    let definition = graph.of(&built);
    let directory = project.scratch().join("here");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("self"), &definition).unwrap();
    let local = format!("here={}", directory.display());
    let _ = build(&project, &["--local", &local], &definition)
        .exit(1)
        .says("nested deeper than 16 levels");
}

#[test]
fn only_what_the_result_needs_is_done() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let failing = graph.sh(&base, "exit 3");
    let missing = graph.source("local://nowhere");
    let _ = graph.merge(&[&failing, &missing]);
    let wanted = graph.file(vec![(-1, -1, 0, mkfile("/wanted", "w"))], &[]);
    let through = Op::Passthrough(pb::PassthroughOp {
        id: "both".to_owned(),
        outputs: vec![1, 0],
    });
    let other = graph.file(vec![(-1, -1, 0, mkfile("/other", "o"))], &[]);
    let through = graph.add(through, &[&other, &wanted]);
    graph.about(&wanted, |about| {
        about
            .description
            .insert("llb.customname".to_owned(), "what is wanted".to_owned());
    });
    assert_eq!(
        files(&project, &graph.of(&through)),
        tree(&[("wanted", "w")])
    );
    let second = State {
        index: 1,
        ..through
    };
    assert_eq!(files(&project, &graph.of(&second)), tree(&[("other", "o")]));
    let run = build(&project, &[], &graph.of(&wanted)).success();
    let _ = run.says("what is wanted").says("CACHED");
    let _ = build(&project, &[], &graph.of(&missing))
        .exit(1)
        .says("nowhere");
}

#[test]
fn steps_that_ignore_the_cache_run_again() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let dated = graph.sh(&base, "cat /proc/sys/kernel/random/uuid > /u");
    let read = graph.file(vec![(-1, 0, 0, copy("/u", "/"))], &[&dated]);
    let definition = graph.of(&read);
    let uuid = |definition: &[u8]| files(&project, definition)["u"].clone();
    let first = uuid(&definition);
    assert_eq!(uuid(&definition), first);
    graph.about(&dated, |about| about.ignore_cache = true);
    let second = uuid(&graph.of(&read));
    assert_ne!(second, first);
    assert_eq!(uuid(&definition), second);
    let _ = build(&project, &["--no-cache"], &definition).success();
    assert_ne!(uuid(&definition), second);
}

#[test]
fn caches_hold_merges_and_diffs() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let lower = graph.sh(&base, "echo lower > /lower");
    let upper = graph.sh(&lower, "echo upper > /upper && rm /lower");
    let difference = graph.diff(Some(&lower), Some(&upper));
    let merged = graph.merge(&[&base, &difference]);
    let last = graph.sh(&merged, "test ! -e /lower && cat /upper > /last");
    let last = graph.file(vec![(-1, 0, 0, copy("/last", "/"))], &[&last]);
    let definition = graph.of(&last);
    let cache = project.scratch().join("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    let _ = build(&project, &["--cache-to", &to], &definition).success();

    let elsewhere = project!(Base::Busybox);
    let from = format!("type=local,src={}", cache.display());
    let out = elsewhere.scratch().join("out");
    let flags = ["--import-cache", &from, "-o", out.to_str().unwrap()];
    let run = build(&elsewhere, &flags, &definition).success();
    assert_eq!(fs::read_to_string(out.join("last")).unwrap(), "upper\n");
    assert!(!run.stderr.contains("0.0 upper"), "{}", run.stderr);
    assert!(run.stderr.contains("CACHED"), "{}", run.stderr);
}

#[test]
fn a_step_may_keep_its_result_out_of_caches() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let kept = graph.sh(&base, "echo kept > /kept");
    let own = graph.sh(&kept, "echo own > /own");
    graph.about(&own, |about| {
        about.export_cache = Some(pb::ExportCache { value: false });
    });
    let last = graph.file(vec![(-1, 0, 0, copy("/own", "/"))], &[&own]);
    // Of what comes above it, the result is there.
    for (result, runs_again) in [(&own, true), (&last, false)] {
        let definition = graph.of(result);
        let cache = project.scratch().join("cache");
        let to = format!("type=local,dest={},mode=max", cache.display());
        let _ = build(&project, &["--cache-to", &to], &definition).success();
        let elsewhere = project!(Base::Busybox);
        let from = format!("type=local,src={}", cache.display());
        let run = build(&elsewhere, &["--import-cache", &from], &definition).success();
        let steps = run.steps();
        let found = steps.iter().filter(|step| step.name.contains("echo own"));
        let found: Vec<bool> = found.map(|step| !step.is_cached()).collect();
        assert_eq!(found, [runs_again], "{}", run.stderr);
        let kept = steps.iter().find(|step| step.name.contains("echo kept"));
        assert!(kept.unwrap().is_cached(), "{}", run.stderr);
    }
}

#[test]
fn definitions_are_held_to_a_source_policy() {
    let project = project!(Base::Busybox);
    let mut inner = Graph::default();
    let base = inner.source("docker-image://gone.example/base:latest");
    let made = inner.sh(&base, "echo inner > /made");
    let made = inner.file(vec![(-1, 0, 0, copy("/made", "/"))], &[&made]);
    let definition = inner.of(&made);
    let file = project.scratch().join("policy.json");
    let policy = |rules: &str| {
        fs::write(&file, format!("{{\"rules\": [{rules}]}}")).unwrap();
        ["--source-policy-file", file.to_str().unwrap()]
    };
    let convert = r#"{"action": "CONVERT",
        "selector": {"identifier": "docker-image://gone.example/*"},
        "updates": {"identifier": "docker-image://docker.io/library/busybox:latest"}}"#;
    let deny = r#"{"action": "DENY", "selector": {"identifier": "docker-image://*"}}"#;
    let flags = policy(convert);
    let run = build(&project, &flags, &definition).success();
    // It is called what it has become.
    let _ = run.says("#1 docker-image://docker.io/library/busybox:latest");
    let expected = "error evaluating the source policy: source \
                    \"docker-image://docker.io/library/busybox:latest\" denied by policy";
    let mut graph = Graph::default();
    let file = graph.file(
        vec![(-1, -1, 0, mkfile("/build.llb", definition.clone()))],
        &[],
    );
    let nested = graph.build(&file, "/build.llb");
    let nested = graph.of(&nested);
    for definition in [&definition, &nested] {
        let flags = policy(&format!("{convert}, {deny}"));
        let _ = build(&project, &flags, definition).exit(1).says(expected);
        let flags = policy(convert);
        let _ = build(&project, &flags, definition).success();
    }
    let flags = policy("{}");
    let _ = build(&project, &flags, &definition)
        .exit(1)
        .says("policy.json:1: rules[0]: missing field `selector`");
}

#[test]
fn what_is_no_definition_is_refused() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    graph.about(&base, |about| {
        about.caps.insert("exec.teleport".to_owned(), true);
    });
    let mut sound = Graph::default();
    sound.busybox();
    for (definition, expected) in [
        (b"garbage".to_vec(), "no LLB definition"),
        (Vec::new(), "invalid empty definition"),
        (graph.of(&base), "unknown API capability exec.teleport"),
        (
            sound.of(&State {
                index: 3,
                ..base.clone()
            }),
            "there is no output 3",
        ),
    ] {
        let _ = build(&project, &[], &definition).exit(1).says(expected);
    }
    let unknown = Graph::default().source("gopher://x");
    let mut graph = Graph::default();
    let same = graph.source("gopher://x");
    assert_eq!(same.digest, unknown.digest);
    let _ = build(&project, &[], &graph.of(&same))
        .exit(1)
        .says("gopher://");
}

#[test]
fn a_printed_definition_builds_what_the_dockerfile_does() {
    let project = project!(Base::Busybox);
    project.write(&[
        (
            "Dockerfile",
            "FROM busybox AS made\nCOPY --link a.txt /x/\nRUN cat /x/a.txt > /made\n\
             FROM scratch\nCOPY --from=made /made /x /\n",
        ),
        ("a.txt", "a\n"),
    ]);
    let printed = project.build(&["--print=llb"]).success();
    let definition = pb::Definition::decode(&printed.stdout[..]).unwrap();
    assert!(definition.def.len() > 5);
    let lines = project.build(&["--print", "llb,format=json"]).success();
    let text = lines.text();
    assert_eq!(text.lines().count(), definition.def.len());
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["Digest"].as_str().unwrap().starts_with("sha256:"));
    }
    let dumped = feed(project.larder(), &["dump"], &printed.stdout).success();
    assert_eq!(dumped.text(), text);
    let dot = feed(project.larder(), &["dump", "--dot"], &printed.stdout).success();
    assert!(dot.text().starts_with("digraph {\n"));

    let by_dockerfile = project.scratch().join("a");
    let _ = project
        .build(&["-o", by_dockerfile.to_str().unwrap()])
        .success();
    let by_definition = project.scratch().join("b");
    let context = format!("context={}", project.context().display());
    let flags = ["--local", &context, "-o", by_definition.to_str().unwrap()];
    let run = build(&project, &flags, &printed.stdout).success();
    assert!(run.stderr.contains("CACHED"), "{}", run.stderr);
    let read = |directory: &PathBuf| {
        let mut found = BTreeMap::new();
        collect(directory, Path::new(""), &mut found);
        found
    };
    assert_eq!(read(&by_definition), read(&by_dockerfile));
    assert_eq!(read(&by_definition)["made"], "a\n");
}

#[test]
fn an_image_of_a_definition_has_the_usual_config() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let file = graph.file(vec![(-1, -1, 0, mkfile("/f", "f"))], &[]);
    let _ = build(&project, &["-t", "plain:1"], &graph.of(&file)).success();
    let image = archive(&project, &graph.of(&file));
    let config = image.config().unwrap();
    assert_eq!(config.config.working_dir, "/");
    assert!(config.config.env[0].starts_with("PATH=/usr/local/sbin:"));
    assert_eq!(config.history.len(), 1);
    assert_eq!(config.history[0].comment, "buildkit.exporter.image.v0");
    assert_eq!(config.history[0].created_by, "mkfile /f");
    let kinds: Vec<EntryKind> = image.layers().unwrap()[0]
        .iter()
        .map(|entry| entry.kind.clone())
        .collect();
    assert_eq!(kinds, [EntryKind::File(b"f".to_vec())]);
    let run = project.larder().run(["images"]).success();
    assert!(run.text().contains("plain"), "{}", run.text());
}

#[test]
fn blobs_of_registries_are_files() {
    let project = project!(Base::Busybox);
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(error) => skip!("no registry: {error:#}"),
    };
    let mut graph = Graph::default();
    let file = graph.file(vec![(-1, -1, 0, mkfile("/f", "f"))], &[]);
    let name = format!("{}/blob", registry.host());
    let output = format!("type=image,name={name}:1,push=true");
    let metadata = project.scratch().join("metadata.json");
    let flags = ["-o", &output, "--metadata-file", metadata.to_str().unwrap()];
    let _ = build(&project, &flags, &graph.of(&file)).success();
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let config = metadata["containerimage.config.digest"].as_str().unwrap();

    let elsewhere = project!(Base::Busybox);
    let identifier = format!("docker-image+blob://{name}@{config}");
    let mut graph = Graph::default();
    let blob = graph.source(&identifier);
    let found = files(&elsewhere, &graph.of(&blob));
    let (path, text) = found.first_key_value().unwrap();
    assert_eq!((found.len(), &**path), (1, &config["sha256:".len()..]));
    assert_eq!(Digest::sha256(text).to_string(), config);
    let again = build(&elsewhere, &[], &graph.of(&blob)).success();
    let _ = again.says("CACHED");
    let missing = Digest::sha256("missing");
    let missing = graph.source(&format!("docker-image+blob://{name}@{missing}"));
    let _ = build(&elsewhere, &[], &graph.of(&missing)).exit(1);
}
