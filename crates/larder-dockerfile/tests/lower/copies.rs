//! COPY: where from, where to, and how.

use larder_llb::{Vertex, pb};

use crate::{copies, history, images, lower, options, try_lower, vertex};

#[test]
fn copies_say_where_and_how() {
    let lowered = lower(
        "FROM base\nENV D=/d U=7\nWORKDIR /w/\n\
         COPY --chown=$U:www --chmod=u+x --exclude=$D/*.md ../a/./b \"x\" $D/\n\
         ADD --unpack=false a.tar .\n\
         COPY --parents ./p/./q/*.c r/s /o/\n\
         COPY <<-A <<'B' /docs/\n\t$D \"q\" \\$D\n\tA\n$D\nB\n",
    );
    let both = copies(&lowered, "COPY --chown");
    assert_eq!((both[0].src.as_str(), both[1].src.as_str()), ("/a/b", "/x"));
    assert_eq!(
        (both[0].dest.as_str(), both[0].mode_str.as_str()),
        ("/d/", "u+x")
    );
    assert_eq!(both[0].exclude_patterns, ["/d/*.md"]);
    let owner = both[0].owner.as_ref().unwrap();
    let group = owner.group.as_ref().unwrap().user.as_ref().unwrap();
    assert_eq!(
        owner.user.as_ref().unwrap().user,
        Some(pb::user_opt::User::ById(7))
    );
    assert!(
        matches!(group, pb::user_opt::User::ByName(named) if named.name == "www" && named.input == 0)
    );
    let add = copies(&lowered, "ADD");
    assert_eq!(add[0].dest, "/w/");
    assert!(!add[0].attempt_unpack_docker_compatibility);
    let parents = copies(&lowered, "COPY --parents");
    assert_eq!(
        (parents[0].src.as_str(), &parents[0].include_patterns[..]),
        ("/p", &["q/*.c".to_owned()][..])
    );
    assert!(parents[0].required_paths.is_empty());
    assert_eq!(parents[1].required_paths, ["/r/s"]);
    let files: Vec<&[u8]> = lowered
        .definition
        .vertices()
        .iter()
        .filter_map(|vertex| match vertex.op.op.as_ref()? {
            pb::op::Op::File(file) => match file.actions[0].action.as_ref()? {
                pb::file_action::Action::Mkfile(mkfile) => Some(&mkfile.data[..]),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(files, [&b"/d \"q\" $D\n"[..], b"$D\n"]);
    assert_eq!(
        history(&lowered)[2..],
        [
            "WORKDIR /w/",
            "COPY --chown=7:www --chmod=u+x ../a/./b x /d/ # buildkit",
            "ADD a.tar . # buildkit",
            "COPY --parents ./p/./q/*.c r/s /o/ # buildkit",
            "COPY <<A <<B /docs/ # buildkit",
        ]
    );
}

#[test]
fn several_sources_may_go_where_a_directory_is_known() {
    for (destination, fits) in [
        ("/w/", true),
        (".", true),
        ("/w", true),
        ("/", true),
        ("/w/x", false),
        ("x", false),
        ("/wx", false),
    ] {
        let text = format!("FROM base\nWORKDIR /w\nCOPY a b {destination}\n");
        let result = try_lower(&text, &options(), &images(|_| {}));
        assert_eq!(result.is_ok(), fits, "{destination}");
    }
}

#[test]
fn links_are_merged_and_chmod_is_no_link() {
    let lowered = lower("FROM base\nCOPY --link --chown=u a /x/\nCOPY --link --chmod=755 b /y/\n");
    let merge = vertex(&lowered, "LINK COPY");
    let copy = vertex(&lowered, "[2/3] COPY --link");
    let group = |vertex: &Vertex| vertex.metadata.progress_group.clone().unwrap();
    assert_eq!(group(merge).id, group(copy).id);
    assert_eq!(group(merge).name, "[2/3] COPY --link --chown=u a /x/");
    assert!(group(copy).weak && !group(merge).weak);
    assert_eq!(copy.inputs.len(), 1, "a linked copy stands on nothing");
    assert!(
        vertex(&lowered, "[3/3] COPY")
            .metadata
            .progress_group
            .is_none()
    );
}
