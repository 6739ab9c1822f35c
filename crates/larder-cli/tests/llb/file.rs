//! The fields of file ops, each with the tree that comes of it.

use std::fmt::Write as _;

use larder_llb::pb;
use larder_llb::pb::file_action::Action;
use larder_testkit::{Base, Entry, EntryKind, Project, project};

use crate::graph::{Graph, State, archive, build, mkdir, mkfile, rm};

/// The time of what rows make, in nanoseconds.
const TIME: i64 = 5_000_000_000;
/// The indexes of the inputs of each row.
const SOURCE: i64 = 0;
const NAMES: i64 = 1;
/// The index of the first action's result.
const FIRST: i64 = 2;

/// Returns an op's actions that follow each other, on nothing: each with the index of what it reads.
fn chain(actions: Vec<(i64, Action)>) -> Vec<(i64, i64, i64, Action)> {
    let count = actions.len() as i64;
    let indexed = (0..).zip(actions);
    let link = |(place, (secondary, action))| {
        let input = if place == 0 { -1 } else { FIRST + place - 1 };
        let output = if place == count - 1 { 0 } else { -1 };
        (input, secondary, output, action)
    };
    indexed.map(link).collect()
}

/// What a copy of `/d` to `/to` is, with all that is usual.
fn copy(change: impl FnOnce(&mut pb::FileActionCopy)) -> (i64, Action) {
    let mut copy = pb::FileActionCopy {
        src: "/d".to_owned(),
        dest: "/to".to_owned(),
        mode: -1,
        timestamp: -1,
        create_dest_path: true,
        dir_copy_contents: true,
        ..pb::FileActionCopy::default()
    };
    change(&mut copy);
    (SOURCE, Action::Copy(copy))
}

fn make(action: Action) -> (i64, Action) {
    (-1, action)
}

fn dir(path: &str, change: impl FnOnce(&mut pb::FileActionMkDir)) -> (i64, Action) {
    let mut mkdir = pb::FileActionMkDir {
        path: path.to_owned(),
        mode: 0o755,
        timestamp: TIME,
        ..pb::FileActionMkDir::default()
    };
    change(&mut mkdir);
    make(Action::Mkdir(mkdir))
}

fn file(path: &str, change: impl FnOnce(&mut pb::FileActionMkFile)) -> (i64, Action) {
    let mut mkfile = pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: b"new".to_vec(),
        timestamp: TIME,
        ..pb::FileActionMkFile::default()
    };
    change(&mut mkfile);
    make(Action::Mkfile(mkfile))
}

fn link(change: impl FnOnce(&mut pb::FileActionSymlink)) -> (i64, Action) {
    let mut symlink = pb::FileActionSymlink {
        oldpath: "../any/where".to_owned(),
        newpath: "/link".to_owned(),
        timestamp: TIME,
        ..pb::FileActionSymlink::default()
    };
    change(&mut symlink);
    make(Action::Symlink(symlink))
}

fn by_id(id: u32) -> pb::UserOpt {
    let user = Some(pb::user_opt::User::ById(id));
    pb::UserOpt { user }
}

fn by_name(name: &str, input: i64) -> pb::UserOpt {
    let name = name.to_owned();
    let named = pb::NamedUserOpt { name, input };
    let user = Some(pb::user_opt::User::ByName(named));
    pb::UserOpt { user }
}

fn owner(
    user: impl Into<Option<pb::UserOpt>>,
    group: impl Into<Option<pb::UserOpt>>,
) -> pb::ChownOpt {
    pb::ChownOpt {
        user: user.into(),
        group: group.into(),
    }
}

/// An archive of one file.
fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o600);
    header.set_mtime(9);
    tar.append_data(&mut header, "packed", &b"tar"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// The tree that rows copy from.
fn source(graph: &mut Graph) -> State {
    let actions = vec![
        file("/a", |it| it.data = b"a".to_vec()),
        dir("/d", |_| {}),
        dir("/d/sub", |it| it.mode = 0o700),
        file("/d/sub/z", |it| it.data = b"z".to_vec()),
        file("/d/x", |it| {
            it.mode = 0o600;
            it.owner = Some(owner(by_id(7), by_id(8)));
        }),
        file("/d/y.txt", |it| it.mode = 0o755),
        link(|it| it.oldpath = String::from("a")),
        file("/t.tar", |it| it.data = tar()),
    ];
    graph.file(chained_without_inputs(actions), &[])
}

/// The tree that names of users are looked up in.
fn names(graph: &mut Graph) -> State {
    let actions = vec![
        dir("/etc", |_| {}),
        file("/etc/passwd", |it| {
            it.data = b"root:x:0:0::/:\njoe:x:11:12::/:\n".to_vec();
        }),
        file("/etc/group", |it| it.data = b"staff:x:13:\n".to_vec()),
    ];
    graph.file(chained_without_inputs(actions), &[])
}

fn chained_without_inputs(actions: Vec<(i64, Action)>) -> Vec<(i64, i64, i64, Action)> {
    let mut chain = chain(actions);
    for (input, ..) in chain.iter_mut().skip(1) {
        *input -= FIRST;
    }
    chain
}

/// Shows what a layer has, a line an entry. The time is there if the rows, or an archive, set it.
fn shown(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let Entry { path, uid, gid, .. } = entry;
        let _ = write!(text, "{path} {:o} {uid}:{gid}", entry.mode);
        if entry.mtime < 1000 {
            let _ = write!(text, " @{}", entry.mtime);
        }
        let _ = match &entry.kind {
            EntryKind::File(bytes) if bytes.is_empty() => Ok(()),
            EntryKind::File(bytes) if bytes.len() > 9 => write!(text, " …"),
            EntryKind::File(bytes) => write!(text, " {}", String::from_utf8_lossy(bytes)),
            EntryKind::Symlink(target) => write!(text, " -> {target}"),
            _ => Ok(()),
        };
        text.push('\n');
    }
    text
}

/// What is shown, the actions, and the layer that must come of them, a line an entry.
type Row = (&'static str, Vec<(i64, Action)>, &'static str);

/// Builds all rows at once, each as a layer of a merge, and compares.
fn check(project: &Project, rows: Vec<Row>) {
    let mut graph = Graph::default();
    let (source, names) = (source(&mut graph), names(&mut graph));
    let mut expected = Vec::new();
    let mut states = Vec::new();
    for (name, actions, lines) in rows {
        states.push(graph.file(chain(actions), &[&source, &names]));
        expected.push((name, format!("{lines}\n")));
    }
    let merged = graph.merge(&states.iter().collect::<Vec<_>>());
    let layers = archive(project, &graph.of(&merged)).layers().unwrap();
    assert_eq!(layers.len(), expected.len());
    let layers = expected.iter().zip(&layers);
    let found: Vec<(&str, String)> = layers.map(|(it, layer)| (it.0, shown(layer))).collect();
    assert_eq!(found, expected);
}

#[test]
fn files_directories_and_links_are_made_as_the_op_says() {
    let project = project!(Base::Busybox);
    let theirs = || owner(by_name("joe", NAMES), by_name("staff", NAMES));
    check(
        &project,
        vec![
            (
                "a directory",
                vec![dir("m", |it| it.mode = 0o1750)],
                "m/ 750 0:0 @5",
            ),
            (
                "with its parents",
                vec![dir("/p/q", |it| {
                    it.mode = 0o711;
                    it.make_parents = true;
                    it.owner = Some(owner(by_id(3), by_id(4)));
                })],
                "p/ 711 3:4 @5\np/q/ 711 3:4 @5",
            ),
            (
                "one that is there",
                vec![
                    dir("/m", |it| it.mode = 0o700),
                    dir("/m", |it| it.owner = Some(theirs())),
                ],
                "m/ 700 0:0 @5",
            ),
            (
                "a directory's owner by name",
                vec![dir("/m", |it| it.owner = Some(theirs()))],
                "m/ 755 11:13 @5",
            ),
            (
                "a file",
                vec![file("f", |it| it.mode = 0o4751)],
                "f 751 0:0 @5 new",
            ),
            (
                "without content",
                vec![file("/f", |it| it.data.clear())],
                "f 644 0:0 @5",
            ),
            (
                "a file's owner by name",
                vec![file("/f", |it| it.owner = Some(theirs()))],
                "f 644 11:13 @5 new",
            ),
            (
                "a file where one is",
                vec![
                    file("/f", |it| it.mode = 0o600),
                    file("/f", |it| it.data = b"two".to_vec()),
                ],
                "f 644 0:0 @5 two",
            ),
            (
                "a file through a link",
                vec![
                    link(|it| it.oldpath = String::from("there")),
                    file("/link", |_| {}),
                ],
                "link 777 0:0 @5 -> there\nthere 644 0:0 @5 new",
            ),
            (
                "a link",
                vec![link(|_| {})],
                "link 777 0:0 @5 -> ../any/where",
            ),
            (
                "a link's owner",
                vec![link(|it| it.owner = Some(owner(by_id(3), by_id(4))))],
                "link 777 3:4 @5 -> ../any/where",
            ),
            (
                "a link's owner by name",
                vec![link(|it| it.owner = Some(theirs()))],
                "link 777 11:13 @5 -> ../any/where",
            ),
            (
                "what is removed",
                vec![
                    file("/a1", |_| {}),
                    file("/a2", |_| {}),
                    file("/b", |_| {}),
                    make(rm("/a*", false)),
                    make(rm("/none", true)),
                ],
                "b 644 0:0 @5 new",
            ),
            (
                "a star that is a name",
                vec![
                    file("/a*", |_| {}),
                    file("/ab", |_| {}),
                    make(Action::Rm(pb::FileActionRm {
                        path: "/a*".to_owned(),
                        ..pb::FileActionRm::default()
                    })),
                ],
                "ab 644 0:0 @5 new",
            ),
            (
                "a directory and a link that are removed",
                vec![
                    dir("/d", |_| {}),
                    file("/d/f", |_| {}),
                    link(|it| it.oldpath = String::from("kept")),
                    file("/kept", |_| {}),
                    make(rm("/d", false)),
                    make(rm("/link", false)),
                ],
                "kept 644 0:0 @5 new",
            ),
        ],
    );
}

/// What is copied of `/d` unless told otherwise.
const ALL: &str = "to/ 755 0:0\nto/sub/ 700 0:0\nto/sub/z 644 0:0 @5 z\n\
                   to/x 600 7:8 @5 new\nto/y.txt 755 0:0 @5 new";

#[test]
fn copies_are_made_as_the_op_says() {
    let project = project!(Base::Busybox);
    let of = |src: &'static str| move |it: &mut pb::FileActionCopy| it.src = src.to_owned();
    check(
        &project,
        vec![
            ("a directory", vec![copy(|_| {})], ALL),
            ("a file", vec![copy(of("/a"))], "to 644 0:0 @5 a"),
            (
                "to a place that there is not",
                vec![copy(|it| {
                    it.src = "/a".to_owned();
                    it.dest = "/p/q/".to_owned();
                    it.timestamp = TIME;
                })],
                "p/ 755 0:0 @5\np/q/ 755 0:0 @5\np/q/a 644 0:0 @5 a",
            ),
            (
                "to a place that there is",
                vec![
                    dir("/p", |_| {}),
                    copy(|it| {
                        it.src = "/a".to_owned();
                        it.dest = "/p/b".to_owned();
                        it.create_dest_path = false;
                    }),
                ],
                "p/ 755 0:0\np/b 644 0:0 @5 a",
            ),
            (
                "a directory itself",
                vec![
                    dir("/to", |_| {}),
                    copy(|it| {
                        it.dir_copy_contents = false;
                        it.include_patterns = vec!["x".to_owned()];
                    }),
                ],
                "to/ 755 0:0\nto/d/ 755 0:0\nto/d/x 600 7:8 @5 new",
            ),
            (
                "owner",
                vec![copy(|it| it.owner = Some(owner(by_id(3), by_id(4))))],
                "to/ 755 3:4\nto/sub/ 700 3:4\nto/sub/z 644 3:4 @5 z\n\
                 to/x 600 3:4 @5 new\nto/y.txt 755 3:4 @5 new",
            ),
            (
                "a user alone",
                vec![copy(|it| {
                    of("/a")(it);
                    it.owner = Some(owner(by_id(3), None));
                })],
                "to 644 3:3 @5 a",
            ),
            (
                "a group alone",
                vec![copy(|it| {
                    of("/a")(it);
                    it.owner = Some(owner(None, by_id(4)));
                })],
                "to 644 0:4 @5 a",
            ),
            (
                "a user's name",
                vec![copy(|it| {
                    of("/a")(it);
                    it.owner = Some(owner(by_name("joe", NAMES), None));
                })],
                "to 644 11:12 @5 a",
            ),
            (
                "a group's name",
                vec![copy(|it| {
                    of("/a")(it);
                    it.owner = Some(owner(by_id(3), by_name("staff", NAMES)));
                })],
                "to 644 3:13 @5 a",
            ),
            (
                "mode",
                vec![copy(|it| it.mode = 0o751)],
                "to/ 755 0:0\nto/sub/ 751 0:0\nto/sub/z 751 0:0 @5 z\n\
                 to/x 751 7:8 @5 new\nto/y.txt 751 0:0 @5 new",
            ),
            (
                "mode in words",
                vec![copy(|it| it.mode_str = "go=rX".to_owned())],
                "to/ 755 0:0\nto/sub/ 755 0:0\nto/sub/z 644 0:0 @5 z\n\
                 to/x 644 7:8 @5 new\nto/y.txt 755 0:0 @5 new",
            ),
            ("a link", vec![copy(of("/link"))], "to 777 0:0 @5 -> a"),
            (
                "what a link leads to",
                vec![copy(|it| {
                    of("/link")(it);
                    it.follow_symlink = true;
                })],
                "to 644 0:0 @5 a",
            ),
            ("an archive", vec![copy(of("/t.tar"))], "to 644 0:0 @5 …"),
            (
                "what is in an archive",
                vec![copy(|it| {
                    of("/t.tar")(it);
                    it.attempt_unpack_docker_compatibility = true;
                    it.timestamp = TIME;
                })],
                "to/ 755 0:0 @5\nto/packed 600 0:0 @9 tar",
            ),
            (
                "a pattern",
                vec![copy(|it| {
                    it.src = "/d/*.txt".to_owned();
                    it.dest = "/".to_owned();
                    it.allow_wildcard = true;
                })],
                "y.txt 755 0:0 @5 new",
            ),
            (
                "a pattern that matches nothing",
                vec![
                    file("/f", |_| {}),
                    copy(|it| {
                        it.src = "/none*".to_owned();
                        it.allow_wildcard = true;
                        it.allow_empty_wildcard = true;
                    }),
                ],
                "f 644 0:0 @5 new",
            ),
            (
                "time",
                vec![copy(|it| {
                    it.src = "/d/sub".to_owned();
                    it.timestamp = 2 * TIME;
                })],
                "to/ 755 0:0 @10\nto/z 644 0:0 @10 z",
            ),
            (
                "what is included",
                vec![copy(|it| it.include_patterns = vec!["*.txt".to_owned()])],
                "to/ 755 0:0\nto/y.txt 755 0:0 @5 new",
            ),
            (
                "what is excluded",
                vec![copy(|it| {
                    it.exclude_patterns = vec!["sub".to_owned(), "x".to_owned()];
                })],
                "to/ 755 0:0\nto/y.txt 755 0:0 @5 new",
            ),
            (
                "what is required",
                vec![copy(|it| {
                    it.include_patterns = vec!["x".to_owned()];
                    it.required_paths = vec!["/d/x".to_owned()];
                })],
                "to/ 755 0:0\nto/x 600 7:8 @5 new",
            ),
            (
                "a file in place of a directory",
                vec![
                    make(mkdir("/to/y.txt/deep")),
                    copy(|it| {
                        it.include_patterns = vec!["*.txt".to_owned()];
                        it.always_replace_existing_dest_paths = true;
                        it.timestamp = TIME;
                    }),
                ],
                "to/ 755 0:0 @5\nto/y.txt 755 0:0 @5 new",
            ),
        ],
    );
}

#[test]
fn file_actions_that_fail_say_why() {
    let project = project!(Base::Busybox);
    let rows = [
        (vec![dir("/no/parent", |_| {})], "no/parent"),
        (vec![file("/no/parent", |_| {})], "no"),
        (
            vec![
                file("/f", |_| {}),
                link(|it| it.newpath = String::from("/f")),
            ],
            "cannot write `/f`: File exists",
        ),
        (
            vec![file("/f", |_| {}), dir("/f", |_| {})],
            "cannot create the directory `/f`",
        ),
        (vec![make(rm("/none", false))], "none"),
        (vec![make(rm("/", false))], "cannot remove the root"),
        (
            vec![copy(|it| {
                it.dest = "/no/parent".to_owned();
                it.create_dest_path = false;
            })],
            "/no/parent",
        ),
        (
            vec![copy(|it| it.src = "/d/*.txt".to_owned())],
            "\"/d/*.txt\": not found",
        ),
        (
            vec![copy(|it| {
                it.src = "/none*".to_owned();
                it.allow_wildcard = true;
            })],
            "/none* not found",
        ),
        (
            vec![copy(|it| it.required_paths = vec!["/d/none".to_owned()])],
            "none",
        ),
        (vec![copy(|it| it.mode_str = "a+q".to_owned())], "a+q"),
        (
            vec![
                make(mkdir("/to/y.txt")),
                copy(|it| it.include_patterns = vec!["*.txt".to_owned()]),
            ],
            "y.txt",
        ),
        (vec![make(mkfile("/to", "file")), copy(|_| {})], "to"),
    ];
    let mut graph = Graph::default();
    let (source, names) = (source(&mut graph), names(&mut graph));
    for (actions, expected) in rows {
        let state = graph.file(chain(actions), &[&source, &names]);
        let _ = build(&project, &[], &graph.of(&state))
            .exit(1)
            .says(expected);
    }
}
