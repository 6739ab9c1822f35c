//! What is said of an op beside what it does: for whom it is, what it is called, where it was written.

use std::collections::BTreeSet;

use larder_llb::pb;
use larder_llb::pb::op::Op;
use larder_llb::{Message as _, caps};
use larder_oci::{Digest, Platform};
use larder_testkit::{Base, project};

use crate::graph::{Graph, State, bind, build, copy, files, mkfile, tree};

/// Changes the last op of a graph, and returns its state.
fn amend(graph: &mut Graph, change: impl FnOnce(&mut pb::Op)) -> State {
    let bytes = graph.definition.def.pop().unwrap();
    let mut op = pb::Op::decode(&bytes[..]).unwrap();
    change(&mut op);
    let bytes = op.encode_to_vec();
    let digest = Digest::sha256(&bytes).to_string();
    graph.definition.def.push(bytes);
    State { digest, index: 0 }
}

fn host() -> pb::Platform {
    let host = Platform::host();
    pb::Platform {
        architecture: host.architecture,
        os: host.os,
        variant: host.variant,
        ..pb::Platform::default()
    }
}

#[test]
fn ops_are_for_a_platform_and_any_worker() {
    let project = project!(Base::Busybox);
    let draw = |platform: Option<pb::Platform>, filter: Vec<String>| {
        let mut graph = Graph::default();
        graph.busybox();
        let base = amend(&mut graph, |op| op.platform = Some(host()));
        graph.sh(&base, "cat /proc/sys/kernel/random/uuid > /drawn");
        let step = amend(&mut graph, |op| {
            op.platform = platform;
            op.constraints = Some(pb::WorkerConstraints { filter });
        });
        let drawn = graph.file(vec![(-1, 0, 0, copy("/drawn", "/"))], &[&step]);
        files(&project, &graph.of(&drawn))["drawn"].clone()
    };
    let first = draw(None, Vec::new());
    assert_eq!(draw(Some(host()), Vec::new()), first);
    assert_eq!(draw(None, vec!["label==x".to_owned()]), first);
    for change in [
        (|it| it.os_version = "1".to_owned()) as fn(&mut pb::Platform),
        |it| it.os_features = vec!["f".to_owned()],
        |it| it.variant = "v9".to_owned(),
    ] {
        let mut platform = host();
        change(&mut platform);
        assert_ne!(draw(Some(platform), Vec::new()), first);
    }
    let mut graph = Graph::default();
    graph.busybox();
    let other = amend(&mut graph, |op| {
        op.platform = Some(pb::Platform {
            architecture: "s390x".to_owned(),
            ..host()
        });
    });
    let _ = build(&project, &[], &graph.of(&other)).exit(1);
}

#[test]
fn steps_have_names_and_groups_and_ask_for_what_there_is() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let one = graph.sh(&base, "echo one");
    let two = graph.sh(&one, "echo two");
    let last = graph.sh(&two, "echo three");
    for state in [&one, &two] {
        graph.about(state, |about| {
            about.progress_group = Some(pb::ProgressGroup {
                id: "g".to_owned(),
                name: "both together".to_owned(),
                weak: false,
            });
        });
    }
    graph.about(&last, |about| {
        let name = ("llb.customname".to_owned(), "the third".to_owned());
        about.description.extend([name]);
        about
            .caps
            .extend(caps::enabled().map(|cap| (cap.to_owned(), true)));
    });
    let run = build(&project, &[], &graph.of(&last)).success();
    let lines = run.stderr.lines().filter_map(|line| line.split_once(' '));
    let steps = lines.filter(|(number, _)| number.starts_with('#'));
    // The heading comes again where a group goes on after a pause.
    let named = |name: &str| {
        let named = steps.clone().filter(|(_, text)| *text == name);
        let numbers: BTreeSet<&str> = named.map(|(number, _)| number).collect();
        numbers.len()
    };
    assert_eq!(named("both together"), 1, "{}", run.stderr);
    assert_eq!(named("the third"), 1, "{}", run.stderr);
    assert!(!run.stderr.contains("/bin/sh -c"), "{}", run.stderr);
    for text in ["one", "two", "three"] {
        assert!(run.stderr.contains(&format!(" {text}\n")), "{}", run.stderr);
    }
}

#[test]
fn errors_show_where_an_op_was_written() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let step = graph.sh(&base, "exit 3");
    let position = |line| Some(pb::Position { line, character: 0 });
    let range = pb::Range {
        start: position(2),
        end: position(2),
    };
    let location = pb::Location {
        source_index: 0,
        ranges: vec![range],
    };
    let locations = pb::Locations {
        locations: vec![location],
    };
    graph.definition.source = Some(pb::Source {
        locations: [(step.digest.clone(), locations)].into(),
        infos: vec![pb::SourceInfo {
            filename: "build.star".to_owned(),
            data: b"base()\nfails(3)\nmore()\n".to_vec(),
            ..pb::SourceInfo::default()
        }],
    });
    let run = build(&project, &[], &graph.of(&step)).exit(1);
    let _ = run
        .says("build.star:2\n")
        .says("   2 | >>> fails(3)\n")
        .says("exit code: 3");
}

#[test]
fn nested_builds_read_the_file_that_they_name() {
    let project = project!(Base::Busybox);
    let mut inner = Graph::default();
    let made = inner.file(vec![(-1, -1, 0, mkfile("/made", "inner"))], &[]);
    let definition = inner.of(&made);
    let mut graph = Graph::default();
    let usual = "/buildkit.llb.definition";
    let usual = graph.file(vec![(-1, -1, 0, mkfile(usual, definition))], &[]);
    let other = graph.file(vec![(-1, -1, 0, mkfile("/other", "x"))], &[]);
    let mut nested = |change: &dyn Fn(&mut pb::BuildOp)| {
        let input = |input| pb::BuildInput { input };
        let mut build = pb::BuildOp {
            builder: -1,
            inputs: [
                ("buildkit.llb.definition".to_owned(), input(1)),
                ("further".to_owned(), input(0)),
            ]
            .into(),
            ..pb::BuildOp::default()
        };
        change(&mut build);
        let state = graph.add(Op::Build(build), &[&other, &usual]);
        graph.of(&state)
    };
    let expected = tree(&[("made", "inner")]);
    assert_eq!(files(&project, &nested(&|_| {})), expected);
    // The definition of its own is no input, as in BuildKit.
    let own = |build: &mut pb::BuildOp| build.def = Some(pb::Definition::default());
    assert_eq!(files(&project, &nested(&own)), expected);
    let unnamed = |build: &mut pb::BuildOp| {
        build.inputs.remove("buildkit.llb.definition");
    };
    for (change, expected) in [
        (
            &unnamed as &dyn Fn(&mut pb::BuildOp),
            "no llb definition input buildkit.llb.definition found",
        ),
        (
            &|build| build.builder = 0,
            "only LLB builder is currently allowed",
        ),
    ] {
        let _ = build(&project, &[], &nested(change)).exit(1).says(expected);
    }
}

#[test]
fn a_mount_that_comes_out_is_an_output_in_its_turn() {
    let project = project!(Base::Busybox);
    let mut graph = Graph::default();
    let base = graph.busybox();
    let seed = graph.file(vec![(-1, -1, 0, mkfile("/seed", "s"))], &[]);
    // What is mounted is named by an id where a program asks for it, which nobody does here.
    let mount = pb::Mount {
        result_id: "any".to_owned(),
        ..bind("/m", 1)
    };
    let step = graph.run(&base, "echo n > /m/new", &[(&seed, mount)], |_| {});
    let output = State { index: 1, ..step };
    assert_eq!(
        files(&project, &graph.of(&output)),
        tree(&[("seed", "s"), ("new", "n\n")])
    );
}
