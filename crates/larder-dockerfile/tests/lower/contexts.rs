//! Named contexts of all kinds.

use std::sync::Arc;

use larder_dockerfile::{LocalContext, Lowered, NamedContext, OciLayout};
use larder_llb::git::GitRef;
use larder_oci::Digest;

use crate::{
    attrs, base_image, images, local_attr, lower, lower_with, names, options, source, try_lower,
    vertex,
};

#[test]
fn named_contexts_stand_in_for_stages_images_and_sources() {
    let context = |name: &str| {
        NamedContext::Local(LocalContext {
            excludes: vec!["x".to_owned()],
            ..LocalContext::new(name)
        })
    };
    let git = |url| NamedContext::Git(GitRef::parse(url).unwrap().unwrap());
    let text = "FROM base AS dep\nRUN never\nFROM base\nCOPY --from=dep /a/b /a\n\
        COPY --from=extra . /e/\nRUN --mount=from=img,target=/i x\nCOPY --from=repo a /\n";
    let lowered = lower_with(text, |options| {
        options.named_contexts = [
            ("dep".to_owned(), context("dep")),
            (
                "docker.io/library/extra:latest".to_owned(),
                context("extra"),
            ),
            ("img".to_owned(), NamedContext::Image("other:1".into())),
            ("repo".to_owned(), git("https://e.test/a.git#main:d")),
        ]
        .into();
    });
    assert!(names(&lowered).iter().all(|name| !name.contains("never")));
    let attr = |name: &str, attr: &str| local_attr(&lowered, name, &format!("local.{attr}"));
    let dep = "[context dep] load from client";
    assert_eq!(attr(dep, "followpaths").as_deref(), Some("[\"a/b\"]"));
    assert_eq!(attr(dep, "excludepatterns").as_deref(), Some("[\"x\"]"));
    assert_eq!(attr(dep, "sharedkeyhint").as_deref(), Some("context:dep"));
    assert_eq!(attr("[context extra]", "followpaths"), None);
    vertex(&lowered, "[context img] docker.io/library/other:1");
    let repository = source(
        &lowered,
        "[internal] load git source https://e.test/a.git#main:d",
    );
    assert_eq!(repository.identifier, "git://e.test/a.git#main:d");
}

#[test]
fn named_contexts_may_be_downloads_and_layouts() {
    let digest = Digest::sha256("manifest");
    let layout = OciLayout {
        store: "store".to_owned(),
        session: None,
        digest: digest.clone(),
    };
    let text = "FROM dep\nCOPY --from=file /context /f\n";
    let mut options = options();
    options.named_contexts = [
        ("dep".to_owned(), NamedContext::OciLayout(layout)),
        (
            "file".to_owned(),
            NamedContext::Http("http://x.test/f.tgz".to_owned()),
        ),
    ]
    .into();
    let mut images = images(|_| {});
    images.0.insert(format!("dep@{digest}"), base_image());
    let lowered = try_lower(text, &options, &images).unwrap();
    let file = source(&lowered, "[context file] http://x.test/f.tgz");
    assert_eq!(attrs(file), [("http.filename", "context")]);
    let dep = source(&lowered, "[context dep] OCI load from client");
    let image = format!("docker.io/library/dep@{digest}");
    assert_eq!(dep.identifier, format!("oci-layout://{image}"));
    assert_eq!(attrs(dep), [("oci.store", "store")]);
    assert_eq!(lowered.base.unwrap().0.to_string(), image);
}

/// Lowers `text` with what `dep` builds as the context `dep`.
fn lower_on(dep: &str, text: &str) -> (Arc<Lowered>, Lowered) {
    let dep = Arc::new(lower(dep));
    let lowered = lower_with(text, |options| {
        let input = NamedContext::Input(Arc::clone(&dep));
        options.named_contexts = [("dep".to_owned(), input)].into();
    });
    (dep, lowered)
}

#[test]
fn what_another_dockerfile_builds_is_as_good_as_a_stage() {
    let dep = "ENV A=1\nWORKDIR /w\nUSER www\nRUN one\nLABEL l=1\nCMD [\"x\"]\n";
    for rest in [
        "FROM dep\nRUN two $A\n",
        "FROM base\nCOPY --from=dep /one /\nRUN --mount=from=dep,target=/dep three\n",
    ] {
        let one_file = lower(&format!("FROM base AS dep\n{dep}{rest}"));
        let (_, two_files) = lower_on(&format!("FROM base\n{dep}"), rest);
        assert_eq!(
            two_files.definition.result(),
            one_file.definition.result(),
            "{rest}"
        );
        assert_eq!(two_files.config, one_file.config, "{rest}");
        assert_eq!(two_files.base, one_file.base, "{rest}");
    }
}

#[test]
fn steps_of_another_dockerfile_keep_their_names_and_lines() {
    let (dep, lowered) = lower_on("FROM base\nRUN one\n", "FROM base\nCOPY --from=dep / /d\n");
    let one = &vertex(&dep, "RUN one").digest;
    let run = vertex(&lowered, "[2/2] RUN one");
    assert_eq!(&run.digest, one);
    let (source, ranges) = &lowered.definition.locations(one)[0];
    let text = &lowered.definition.sources()[*source].data;
    assert!(text.starts_with(b"FROM base\nRUN one"));
    assert_eq!(ranges[0].start, 2);
    assert_eq!(lowered.steps[one].stage, "dep:stage-0");
    assert_eq!(lowered.steps[one].context.as_deref(), Some("dep"));
    // Of both files there is the base, once.
    assert_eq!(lowered.definition.vertices().len(), 3);
}

#[test]
fn an_input_may_be_empty_stand_in_for_a_stage_and_order_steps() {
    let (_, lowered) = lower_on("FROM scratch\nENV A=1\n", "FROM dep\nCOPY a /\n");
    assert_eq!(lowered.definition.vertices().len(), 2);
    assert!(lowered.config.config.env.contains(&"A=1".to_owned()));

    let (dep, lowered) = lower_on(
        "FROM base\nRUN one\n",
        "FROM base AS dep\nRUN never\nFROM dep\n",
    );
    assert_eq!(lowered.definition.result(), dep.definition.result());

    let (_, lowered) = lower_on("FROM base\nONBUILD RUN ordered\n", "FROM dep\n");
    vertex(&lowered, "ONBUILD RUN ordered");
    assert!(lowered.config.config.on_build.is_empty());
}
