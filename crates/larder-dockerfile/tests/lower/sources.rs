//! Files from servers and repositories, and the agents to reach them.

use std::sync::Arc;

use larder_dockerfile::{Dockerfile, EpochSource, HttpContext, Lowered, NamedContext};
use larder_llb::git::GitRef;
use larder_llb::pb;
use larder_oci::Digest;

use crate::{attrs, exec, local_attr, lower, lower_with, names, options, source, vertex};

#[test]
fn add_takes_git_repositories() {
    let text = "FROM base\nADD --keep-git-dir=true --chown=1 https://e.test/a.git#v1 /src/\n\
        ADD --link --checksum=abc git@e.test:a/b.git?subdir=/d&submodules=false /src/\n";
    let lowered = lower(text);
    let name = "[2/3] ADD --keep-git-dir=true --chown=1 https://e.test/a.git#v1 /src/";
    let both = lowered.definition.vertices().iter();
    let both: Vec<_> = both.filter(|vertex| vertex.name() == name).collect();
    assert_eq!(both.len(), 2);
    let Some(pb::op::Op::Source(first)) = &both[0].op.op else {
        panic!("{:?}", both[0].op);
    };
    assert_eq!(first.identifier, "git://e.test/a.git#v1");
    assert_eq!(
        attrs(first),
        [
            ("git.authheadersecret", "GIT_AUTH_HEADER"),
            ("git.authtokensecret", "GIT_AUTH_TOKEN"),
            ("git.fullurl", "https://e.test/a.git"),
            ("git.keepgitdir", "true"),
        ]
    );
    let caps = &both[0].metadata.caps;
    for cap in ["source.git", "source.git.fullurl", "source.git.keepgitdir"] {
        assert!(caps.contains_key(cap), "{caps:?}");
    }
    let Some(pb::op::Op::File(file)) = &both[1].op.op else {
        panic!("{:?}", both[1].op);
    };
    let Some(pb::file_action::Action::Copy(copy)) = &file.actions[0].action else {
        panic!("{file:?}");
    };
    assert_eq!((&*copy.src, &*copy.dest), ("/", "/src/"));
    assert!(copy.create_dest_path && copy.owner.is_some());
    assert!(!copy.dir_copy_contents && !copy.allow_wildcard && !copy.follow_symlink);
    let history = &lowered.config.history;
    assert_eq!(
        history[history.len() - 2].created_by,
        "ADD --chown=1 https://e.test/a.git#v1 /src/ # buildkit"
    );
    let name =
        "[3/3] ADD --link --checksum=abc git@e.test:a/b.git?subdir=/d&submodules=false /src/";
    let second = source(&lowered, name);
    assert_eq!(second.identifier, "git://e.test/a/b.git#:/d");
    assert_eq!(
        attrs(second),
        [
            ("git.authheadersecret", "GIT_AUTH_HEADER"),
            ("git.authtokensecret", "GIT_AUTH_TOKEN"),
            ("git.checksum", "abc"),
            ("git.fullurl", "git@e.test:a/b.git"),
            ("git.mountsshsock", "default"),
            ("git.skipsubmodules", "true"),
        ]
    );
}

#[test]
fn run_mounts_ssh_agents() {
    let text = "FROM base\n\
        RUN --mount=type=ssh --mount=type=secret,id=s --mount=type=ssh,id=k,target=/a,required,mode=0644,uid=1 x\n\
        ENV SSH_AUTH_SOCK=/own\nRUN --mount=type=ssh,gid=5 y\n";
    let lowered = lower(text);
    let exec = |name: &str| exec(&lowered, name).clone();
    let agents = |exec: &pb::ExecOp| -> Vec<(String, pb::SshOpt)> {
        let mounts = exec.mounts.iter();
        let mounts = mounts.filter_map(|it| Some((it.dest.clone(), it.ssh_opt.clone()?)));
        mounts.collect()
    };
    let option = |id: &str, uid, gid, mode, optional| pb::SshOpt {
        id: id.to_owned(),
        uid,
        gid,
        mode,
        optional,
    };
    let first = exec("2/3] RUN");
    assert_eq!(
        agents(&first),
        [
            (
                "/run/buildkit/ssh_agent.0".to_owned(),
                option("", 0, 0, 0o600, true)
            ),
            ("/a".to_owned(), option("k", 1, 0, 0o644, false)),
        ]
    );
    assert!(first.mounts[1].secret_opt.is_some(), "{:?}", first.mounts);
    let env = |exec: &pb::ExecOp| exec.meta.clone().unwrap().env;
    let last = "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0";
    assert_eq!(env(&first).last().map(String::as_str), Some(last));
    assert!(
        vertex(&lowered, "2/3] RUN")
            .metadata
            .caps
            .contains_key("exec.mount.ssh")
    );
    let second = exec("3/3] RUN");
    let sockets: Vec<String> = env(&second)
        .into_iter()
        .filter(|text| text.starts_with("SSH_AUTH_SOCK="))
        .collect();
    assert_eq!(sockets, ["SSH_AUTH_SOCK=/own"]);
}

fn copies_from(lowered: &Lowered, name: &str) -> Vec<(i64, pb::FileActionCopy)> {
    let vertices = lowered.definition.vertices().iter();
    let mut files = vertices.filter(|vertex| vertex.name().contains(name));
    let file = files.find_map(|vertex| match &vertex.op.op {
        Some(pb::op::Op::File(file)) => Some(file),
        _ => None,
    });
    let actions = file.unwrap().actions.iter();
    let copy = |action: &pb::FileAction| match &action.action {
        Some(pb::file_action::Action::Copy(copy)) => (action.secondary_input, copy.clone()),
        other => panic!("{other:?}"),
    };
    actions.map(copy).collect()
}

#[test]
fn downloads_are_sources_of_their_own() {
    let sum = Digest::sha256("x");
    let lowered = lower(&format!(
        "FROM base\nADD --checksum={sum} --chown=1:2 --chmod=755 https://x.test/d/a.tar?v=1 /t/\n"
    ));
    let name = "[2/2] ADD --checksum";
    let http = source(&lowered, name);
    assert_eq!(http.identifier, "https://x.test/d/a.tar?v=1");
    assert_eq!(
        attrs(http),
        [("http.checksum", sum.as_str()), ("http.filename", "a.tar")]
    );
    assert_eq!(vertex(&lowered, name).op.platform, None);
    let [(1, copy)] = &copies_from(&lowered, name)[..] else {
        panic!("one copy from the second input");
    };
    let expected = pb::FileActionCopy {
        src: "/a.tar".to_owned(),
        dest: "/t/".to_owned(),
        owner: copy.owner.clone(),
        mode: 0o755,
        create_dest_path: true,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    };
    assert_eq!(*copy, expected);
    assert!(copy.owner.is_some());
    let last = lowered.config.history.last().unwrap();
    assert_eq!(
        last.created_by,
        "ADD --chown=1:2 --chmod=755 https://x.test/d/a.tar?v=1 /t/ # buildkit"
    );
}

#[test]
fn a_download_without_a_name_gets_one() {
    for url in ["https://x.test", "https://x.test/", "https://x.test/?v=1"] {
        let lowered = lower(&format!("FROM base\nADD {url} /t/\n"));
        let http = source(&lowered, "[2/2] ADD");
        assert_eq!(attrs(http), [("http.filename", "__unnamed__")], "{url}");
    }
}

#[test]
fn downloads_and_paths_may_be_mixed() {
    let lowered = lower(
        "FROM base\nADD https://x.test/a b.txt https://x.test/c b2.txt /t/\n\
         ADD --unpack=true https://x.test/t.tgz /u/\n",
    );
    let first = copies_from(&lowered, "ADD https://x.test/a b.txt");
    let first: Vec<_> = first
        .iter()
        .map(|(input, copy)| {
            let unpacks = copy.attempt_unpack_docker_compatibility;
            (*input, &*copy.src, unpacks, copy.allow_wildcard)
        })
        .collect();
    assert_eq!(
        first,
        [
            (1, "/a", false, false),
            (2, "/b.txt", true, true),
            (3, "/c", false, false),
            (2, "/b2.txt", true, true)
        ]
    );
    let [(1, unpacked)] = &copies_from(&lowered, "t.tgz")[..] else {
        panic!("one copy");
    };
    assert!(unpacked.attempt_unpack_docker_compatibility);
    assert_eq!(
        local_attr(&lowered, "load build context", "local.followpaths").as_deref(),
        Some("[\"b.txt\",\"b2.txt\"]")
    );
    // A download alone needs no context.
    let alone = lower("FROM base\nADD https://x.test/a /\n");
    assert!(names(&alone).iter().all(|name| !name.contains("context")));
}

#[test]
fn a_context_may_be_fetched() {
    let url = "https://x.test/c.tgz";
    for (form, sources) in [(HttpContext::File, 1), (HttpContext::Archive, 2)] {
        let context = Arc::new(form.definition(url).unwrap());
        assert_eq!(context.vertices().len(), sources);
        let lowered = lower_with("FROM base\nCOPY a b /d/\n", |options| {
            options.remote_context = Some(Arc::clone(&context));
        });
        let copy = vertex(&lowered, "COPY");
        assert_eq!(copy.inputs.last(), context.result());
        assert_eq!(lowered.definition.vertices().len(), sources + 2);
    }
}

#[test]
fn images_may_be_dated_by_sources() {
    let text = "ARG SOURCE_DATE_EPOCH\nARG V=1\nFROM scratch AS Src\nARG V\n\
                ADD https://x.test/a.git#v$V /\nFROM scratch AS file\nADD https://x.test/f /\n\
                FROM base AS on\nFROM scratch AS run\nRUN true\nFROM scratch AS none\n\
                FROM scratch AS two\nADD https://x.test/a https://x.test/b /\n\
                FROM scratch AS local\nADD a /\nFROM base\n";
    let dockerfile = Dockerfile::parse(text.as_bytes(), "Dockerfile").unwrap();
    let git = GitRef::parse("https://x.test/c.git").unwrap().unwrap();
    let context = larder_dockerfile::git_context(&git, true).unwrap();
    let ask = |value: &str, remote: bool| {
        let mut options = options();
        options.build_args = [("SOURCE_DATE_EPOCH".to_owned(), value.to_owned())].into();
        options.named_contexts = [
            ("repo".to_owned(), NamedContext::Git(git.clone())),
            (
                "page".to_owned(),
                NamedContext::Http("https://x.test/p".to_owned()),
            ),
            ("image".to_owned(), NamedContext::Image("base".to_owned())),
        ]
        .into();
        options.remote_context = remote.then(|| Arc::new(context.clone()));
        dockerfile.epoch_source(&options)
    };
    for value in ["", "0", "-5", "1600000000"] {
        assert_eq!(ask(value, true).unwrap(), None, "{value}");
    }
    let stage = "[internal] resolve SOURCE_DATE_EPOCH source stage";
    let named = "[internal] resolve SOURCE_DATE_EPOCH named context";
    for (value, remote, identifier, shown) in [
        (
            "context",
            true,
            "git://x.test/c.git",
            "[internal] resolve main build context metadata".to_owned(),
        ),
        ("repo", false, "git://x.test/c.git", format!("{named} repo")),
        ("page", false, "https://x.test/p", format!("{named} page")),
        (
            "SRC",
            false,
            "git://x.test/a.git#v1",
            format!("{stage} src"),
        ),
        ("file", false, "https://x.test/f", format!("{stage} file")),
    ] {
        let Some(EpochSource::Source(source, name)) = ask(value, remote).unwrap() else {
            panic!("{value}")
        };
        assert_eq!(source.identifier, identifier, "{value}");
        assert_eq!(name, shown);
    }
    for value in ["context", "image"] {
        let found = ask(value, false).unwrap();
        assert_eq!(found, Some(EpochSource::Untimed), "{value}");
    }
    for (value, message) in [
        ("nothing", "invalid SOURCE_DATE_EPOCH: \"nothing\""),
        ("on", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        (
            "run",
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported RUN instruction",
        ),
        (
            "none",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
        ),
        (
            "two",
            "SOURCE_DATE_EPOCH source must be a single HTTP(S) or Git ADD",
        ),
        (
            "local",
            "SOURCE_DATE_EPOCH source must be a single HTTP(S) or Git ADD",
        ),
    ] {
        let error = ask(value, false).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
