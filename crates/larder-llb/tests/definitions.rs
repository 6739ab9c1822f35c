//! Definitions as clients send them, sound and hostile.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use larder_llb::pb::file_action::Action;
use larder_llb::pb::op::Op;
use larder_llb::{Definition, Message, dump, pb};
use larder_oci::Digest;

/// A definition in the making.
#[derive(Default)]
struct Ops {
    definition: pb::Definition,
}

impl Ops {
    fn add(&mut self, op: Op, inputs: &[(&str, i64)]) -> String {
        self.push(&pb::Op {
            op: Some(op),
            inputs: edges(inputs),
            ..pb::Op::default()
        })
    }

    fn push(&mut self, op: &pb::Op) -> String {
        let bytes = op.encode_to_vec();
        let digest = Digest::sha256(&bytes).to_string();
        self.definition.def.push(bytes);
        digest
    }

    fn image(&mut self, name: &str) -> String {
        let identifier = format!("docker-image://{name}");
        let source = pb::SourceOp {
            identifier,
            ..pb::SourceOp::default()
        };
        self.add(Op::Source(source), &[])
    }

    fn end(mut self, result: (&str, i64)) -> pb::Definition {
        self.push(&pb::Op {
            inputs: edges(&[result]),
            ..pb::Op::default()
        });
        self.definition
    }
}

fn edges(inputs: &[(&str, i64)]) -> Vec<pb::Input> {
    let edge = |&(digest, index): &(&str, i64)| pb::Input {
        digest: digest.to_owned(),
        index,
    };
    inputs.iter().map(edge).collect()
}

/// A definition of one op that reads output 0 of `inputs` images.
fn one(op: Op, inputs: usize) -> pb::Definition {
    let mut ops = Ops::default();
    let images: Vec<String> = (0..inputs).map(|n| ops.image(&n.to_string())).collect();
    let edges: Vec<(&str, i64)> = images.iter().map(|image| (&**image, 0)).collect();
    let op = ops.add(op, &edges);
    ops.end((&op, 0))
}

/// The whole message of the error that reading a definition ends in.
fn error(definition: &pb::Definition) -> String {
    let error = Definition::from_pb(definition).unwrap_err();
    let source = std::error::Error::source(&error);
    let source = source.map_or(String::new(), |source| format!(": {source}"));
    format!("{error}{source}")
}

fn exec(change: impl FnOnce(&mut pb::ExecOp)) -> Op {
    let mut exec = pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["true".into()],
            cwd: "/".into(),
            ..pb::Meta::default()
        }),
        mounts: vec![mount(0, "/", 0)],
        ..pb::ExecOp::default()
    };
    change(&mut exec);
    Op::Exec(exec)
}

fn mount(input: i64, dest: &str, output: i64) -> pb::Mount {
    pb::Mount {
        input,
        dest: dest.to_owned(),
        output,
        ..pb::Mount::default()
    }
}

fn file(actions: &[(i64, i64, i64, Action)]) -> Op {
    let action =
        |(input, secondary_input, output, action): &(i64, i64, i64, Action)| pb::FileAction {
            input: *input,
            secondary_input: *secondary_input,
            output: *output,
            action: Some(action.clone()),
        };
    Op::File(pb::FileOp {
        actions: actions.iter().map(action).collect(),
    })
}

fn mkdir(path: &str) -> Action {
    Action::Mkdir(pb::FileActionMkDir {
        path: path.to_owned(),
        ..pb::FileActionMkDir::default()
    })
}

fn copy(src: &str) -> Action {
    Action::Copy(pb::FileActionCopy {
        src: src.to_owned(),
        dest: "/".to_owned(),
        ..pb::FileActionCopy::default()
    })
}

fn diff(lower: i64, upper: i64) -> Op {
    Op::Diff(pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: lower }),
        upper: Some(pb::UpperDiffInput { input: upper }),
    })
}

fn merge(inputs: &[i64]) -> Op {
    let input = |&input: &i64| pb::MergeInput { input };
    Op::Merge(pb::MergeOp {
        inputs: inputs.iter().map(input).collect(),
    })
}

fn build(builder: i64, input: i64) -> Op {
    let input = pb::BuildInput { input };
    Op::Build(pb::BuildOp {
        builder,
        inputs: [("buildkit.llb.definition".to_owned(), input)].into(),
        ..pb::BuildOp::default()
    })
}

fn passthrough(id: &str, outputs: &[i64]) -> Op {
    Op::Passthrough(pb::PassthroughOp {
        id: id.to_owned(),
        outputs: outputs.to_vec(),
    })
}

#[test]
fn sound_ops_are_taken() {
    for (op, inputs) in [
        (exec(|_| {}), 1),
        (
            exec(|exec| {
                let secret = pb::Mount {
                    mount_type: pb::MountType::Secret.into(),
                    secret_opt: Some(pb::SecretOpt::default()),
                    // Left at zero, and without meaning.
                    ..mount(-1, "/run/secrets/a", 0)
                };
                exec.mounts.extend([secret, mount(-1, "/out", 1)]);
            }),
            1,
        ),
        (file(&[(-1, -1, 0, mkdir("/a"))]), 0),
        (file(&[(0, -1, -1, mkdir("/a")), (1, 0, 0, copy("/b"))]), 1),
        (diff(-1, -1), 0),
        (diff(0, 1), 2),
        (diff(-1, 0), 1),
        (merge(&[1, 0]), 2),
        (merge(&[]), 0),
        (build(-1, 0), 1),
        (passthrough("id", &[0, 0]), 1),
    ] {
        let definition = one(op, inputs);
        let graph = Definition::from_pb(&definition).unwrap();
        assert_eq!(graph.vertices().len(), inputs + 1);
    }
}

#[test]
fn hostile_ops_are_refused_by_what_is_wrong_with_them() {
    let cases: Vec<(Op, usize, &str)> = vec![
        (exec(|it| it.meta = None), 1, "no meta"),
        (exec(|it| it.mounts.clear()), 1, "no mounts"),
        (exec(|it| it.mounts[0].dest = "/x".into()), 1, "no rootfs"),
        (
            exec(|it| it.mounts.push(mount(0, "/", 1))),
            1,
            "more than one root",
        ),
        (
            exec(|it| it.meta.as_mut().unwrap().args.clear()),
            1,
            "no args",
        ),
        (
            exec(|it| it.meta.as_mut().unwrap().env.push("A=\0".into())),
            1,
            "byte 0",
        ),
        (exec(|_| {}), 0, "mount input 0 is out of bounds"),
        (exec(|it| it.mounts[0].input = -2), 1, "mount input -2"),
        (exec(|it| it.mounts[0].output = -2), 1, "not numbered"),
        (exec(|it| it.mounts[0].output = 1), 1, "not numbered"),
        (
            exec(|it| it.mounts.push(mount(-1, "/o", 0))),
            1,
            "not numbered",
        ),
        (exec(|it| it.network = 7), 1, "7 is no network mode"),
        (exec(|it| it.security = -1), 1, "-1 is no security mode"),
        (
            exec(|it| it.mounts[0].mount_type = 9),
            1,
            "9 is no mount type",
        ),
        (
            exec(|it| it.mounts[0].mount_type = pb::MountType::Tmpfs.into()),
            1,
            "invalid mount type TMPFS for /",
        ),
        (
            exec(|it| {
                it.mounts.push(pb::Mount {
                    mount_type: pb::MountType::Tmpfs.into(),
                    tmpfs_opt: Some(pb::TmpfsOpt { size: -1 }),
                    ..mount(-1, "/t", -1)
                });
            }),
            1,
            "negative size",
        ),
        (
            exec(|it| {
                it.mounts.push(pb::Mount {
                    mount_type: pb::MountType::Cache.into(),
                    ..mount(-1, "/c", -1)
                });
            }),
            1,
            "missing cache mount options",
        ),
        (
            exec(|it| {
                it.mounts.push(pb::Mount {
                    selector: "/sub".into(),
                    content_cache: pb::MountContentCache::On.into(),
                    ..mount(0, "/c", 1)
                });
            }),
            1,
            "invalid mount cache content",
        ),
        (
            exec(|it| it.secretenv.push(pb::SecretEnv::default())),
            1,
            "names no secret",
        ),
        (file(&[]), 0, "no actions"),
        (file(&[(-1, -1, -1, mkdir("/a"))]), 0, "no outputs"),
        (
            file(&[(-1, -1, 1, mkdir("/a"))]),
            0,
            "missing output index 0",
        ),
        (
            file(&[(-1, -1, 0, mkdir("/a")), (-1, -1, 0, mkdir("/a"))]),
            0,
            "duplicate output 0",
        ),
        (
            file(&[(1, -1, 0, mkdir("/a"))]),
            1,
            "file action input 1 is out of bounds",
        ),
        (
            file(&[(0, -2, 0, copy("/a"))]),
            1,
            "secondary input -2 is out of bounds",
        ),
        (file(&[(0, -1, 0, copy("/a"))]), 1, "no source"),
        (file(&[(0, -1, 0, mkdir("/a\0"))]), 1, "byte 0"),
        (
            file(&[(
                0,
                -1,
                0,
                Action::Mkdir(pb::FileActionMkDir {
                    owner: Some(pb::ChownOpt {
                        user: Some(pb::UserOpt {
                            user: Some(pb::user_opt::User::ByName(pb::NamedUserOpt {
                                name: "a".into(),
                                input: 1_000_000,
                            })),
                        }),
                        group: None,
                    }),
                    ..pb::FileActionMkDir::default()
                }),
            )]),
            1,
            "user index 1000000 is out of bounds",
        ),
        (
            Op::File(pb::FileOp {
                actions: vec![pb::FileAction::default()],
            }),
            1,
            "none that larder knows",
        ),
        (merge(&[0]), 2, "1 inner inputs and 2 outer inputs"),
        (merge(&[0, 2]), 2, "merge input 2 is out of bounds"),
        (
            Op::Diff(pb::DiffOp::default()),
            0,
            "nil lower or upper input",
        ),
        (diff(0, 2), 2, "diff upper 2 is out of bounds"),
        (diff(-1, -1), 1, "for each of its sides"),
        (build(0, 0), 1, "only LLB builder is currently allowed"),
        (build(-1, 1), 1, "build input 1 is out of bounds"),
        (passthrough("", &[0]), 1, "no id"),
        (passthrough("a", &[]), 1, "no outputs"),
        (passthrough("a", &[1]), 1, "passthrough output 1"),
        (
            Op::Source(pb::SourceOp::default()),
            0,
            "identifier has no scheme",
        ),
        (
            Op::Source(pb::SourceOp {
                identifier: "local://a".into(),
                ..pb::SourceOp::default()
            }),
            1,
            "a source has no inputs",
        ),
    ];
    for (op, inputs, expected) in cases {
        let definition = one(op, inputs);
        let message = error(&definition);
        let vertex = Digest::sha256(&definition.def[inputs]);
        let start = format!("invalid LLB vertex `{vertex}`: ");
        assert!(message.starts_with(&start), "{expected}: {message}");
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn hostile_graphs_are_refused() {
    let missing = Digest::sha256("nothing").to_string();
    let mut ops = Ops::default();
    let reader = ops.add(merge(&[0]), &[(&missing, 0)]);
    let message = error(&ops.end((&reader, 0)));
    let expected = format!("LLB vertex `{reader}` reads `{missing}`, which is not defined");
    assert_eq!(message, expected);

    let mut ops = Ops::default();
    ops.image("a");
    let message = error(&ops.end((&missing, 0)));
    assert!(message.contains("has no vertex"), "{message}");

    for index in [-1, 1, i64::MAX] {
        let mut ops = Ops::default();
        let image = ops.image("a");
        let reader = ops.add(merge(&[0]), &[(&image, index)]);
        let message = error(&ops.end((&reader, 0)));
        let expected = format!("there is no output {index} of `{image}`, which has 1");
        assert!(message.ends_with(&expected), "{message}");
    }
    for index in [1, -1] {
        let mut ops = Ops::default();
        let image = ops.image("a");
        error(&ops.end((&image, index)));
    }

    let mut ops = Ops::default();
    let read = ops.push(&pb::Op {
        inputs: edges(&[("sha256:short", 0)]),
        op: Some(merge(&[0])),
        ..pb::Op::default()
    });
    assert!(error(&ops.end((&read, 0))).contains("cannot decode LLB op 0"));

    let nothing = |def: Vec<Vec<u8>>| pb::Definition {
        def,
        ..pb::Definition::default()
    };
    assert!(error(&nothing(vec![vec![0xff]])).contains("cannot decode LLB op 0"));
    let mut ops = Ops::default();
    ops.image("a");
    assert!(error(&nothing(ops.definition.def)).contains("has to name the result"));
    assert!(error(&nothing(vec![Vec::new()])).contains("has to name the result"));
    let many = vec![Vec::new(); 100_002];
    assert!(error(&nothing(many)).contains("more than 100000 ops"));
}

#[test]
fn ops_may_come_in_any_order_and_what_nobody_needs_is_left_out() {
    let mut ops = Ops::default();
    let first = ops.image("a");
    let second = ops.add(file(&[(0, -1, 0, mkdir("/a"))]), &[(&first, 0)]);
    let third = ops.add(file(&[(0, -1, 0, mkdir("/b"))]), &[(&second, 0)]);
    // Nobody reads it, so what is wrong with it is nobody's business.
    ops.add(merge(&[7]), &[(&first, 0)]);
    let mut definition = ops.end((&third, 0));
    let sorted = Definition::from_pb(&definition).unwrap();
    definition.def[..4].reverse();
    let shuffled = Definition::from_pb(&definition).unwrap();
    let digests = |graph: &Definition| -> Vec<String> {
        let vertices = graph.vertices().iter();
        vertices.map(|vertex| vertex.digest.to_string()).collect()
    };
    assert_eq!(digests(&sorted), [first, second, third]);
    assert_eq!(digests(&shuffled), digests(&sorted));
}

#[test]
fn what_was_read_is_written_as_it_came() {
    let mut ops = Ops::default();
    // The platform comes last here, where BuildKit has it before the op.
    let image = ops.push(&pb::Op {
        op: Some(Op::Source(pb::SourceOp {
            identifier: "docker-image://a".into(),
            ..pb::SourceOp::default()
        })),
        platform: Some(pb::Platform {
            os: "linux".into(),
            ..pb::Platform::default()
        }),
        ..pb::Op::default()
    });
    let last = ops.add(merge(&[0]), &[(&image, 0)]);
    let definition = ops.end((&last, 0));
    let graph = Definition::from_pb(&definition).unwrap();
    assert_eq!(graph.to_pb().def, definition.def);
    assert_eq!(Definition::from_pb(&graph.to_pb()).unwrap(), graph);
}

#[test]
fn capabilities_that_are_not_there_are_named() {
    let mut definition = one(diff(-1, -1), 0);
    let vertex = Digest::sha256(&definition.def[0]);
    let caps = |caps: &[&str]| pb::OpMetadata {
        caps: caps.iter().map(|cap| ((*cap).to_owned(), true)).collect(),
        ..pb::OpMetadata::default()
    };
    let metadata = &mut definition.metadata;
    metadata.insert(vertex.to_string(), caps(&["diffop", "platform"]));
    Definition::from_pb(&definition).unwrap();
    let metadata = &mut definition.metadata;
    metadata.insert(vertex.to_string(), caps(&["diffop", "exec.teleport"]));
    assert_eq!(
        error(&definition),
        format!("invalid LLB vertex `{vertex}`: unknown API capability exec.teleport")
    );
    let tail = Digest::sha256(&definition.def[1]).to_string();
    definition.metadata.clear();
    definition
        .metadata
        .insert(tail, caps(&["source.policy.session"]));
    let message = error(&definition);
    let expected = "requested experimental feature source.policy.session has been disabled on the \
                    build server: policies that a client evaluates are not asked for yet";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn names_tell_of_inputs_and_stay_short() {
    let mut ops = Ops::default();
    let (a, b) = (ops.image("a"), ops.image("b"));
    let difference = ops.add(diff(0, 1), &[(&a, 0), (&b, 0)]);
    let from_nothing = ops.add(diff(-1, 0), &[(&difference, 0)]);
    let mut last = ops.add(merge(&[0, 1]), &[(&a, 0), (&from_nothing, 0)]);
    let merged = last.clone();
    for _ in 0..64 {
        last = ops.add(merge(&[0, 1]), &[(&last, 0), (&last, 0)]);
    }
    let graph = Definition::from_pb(&ops.end((&last, 0))).unwrap();
    let name = |digest: &str| graph.get(&digest.parse().unwrap()).unwrap().name();
    assert_eq!(
        name(&merged),
        "merge (docker-image://a, diff scratch -> \
         (diff (docker-image://a) -> (docker-image://b)))"
    );
    assert!(name(&last).len() < 1100);
}

#[test]
fn deep_graphs_are_read() {
    let mut ops = Ops::default();
    let mut last = ops.image("a");
    for _ in 0..20_000 {
        last = ops.add(merge(&[0]), &[(&last, 0)]);
    }
    let mut definition = ops.end((&last, 0));
    let graph = Definition::from_pb(&definition).unwrap();
    assert_eq!(graph.vertices().len(), 20_001);
    definition.def[..20_001].reverse();
    assert_eq!(Definition::from_pb(&definition).unwrap(), graph);
}

#[test]
fn dumps_are_those_of_buildctl() {
    let mut ops = Ops::default();
    let image = ops.image("a<b");
    let run = ops.add(
        exec(|it| it.mounts.push(mount(0, "/m\"x", -1))),
        &[(&image, 0)],
    );
    let made = ops.add(
        file(&[(
            0,
            -1,
            0,
            Action::Mkfile(pb::FileActionMkFile {
                path: "/f".into(),
                data: b"hi".to_vec(),
                ..pb::FileActionMkFile::default()
            }),
        )]),
        &[(&run, 0)],
    );
    let definition = ops.end((&made, 0));
    let text = dump::json(&definition).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[0],
        format!(
            r#"{{"Op":{{"Op":{{"source":{{"identifier":"docker-image://a\u003cb"}}}}}},"Digest":"{image}","OpMetadata":null}}"#
        )
    );
    assert!(lines[2].contains(
        r#""Op":{"file":{"actions":[{"input":0,"secondaryInput":-1,"output":0,"Action":{"mkfile":{"path":"/f","data":"aGk="}}}]}}"#
    ));
    let dot = dump::dot(&definition).unwrap();
    let edge = format!(r#"  "{image}" -> "{run}" [label="/m\"x"];"#);
    assert!(dot.contains(&edge), "{dot}");
    assert!(
        dot.contains(r#"[label="mkfile /f" shape="note"];"#),
        "{dot}"
    );
}
