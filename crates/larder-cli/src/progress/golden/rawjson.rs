use insta::assert_snapshot;
use larder_engine::event::{BuildEvent, MissCause, ProgressGroup, VertexEvent};
use larder_oci::Digest;

use super::{RECORDED, Script, recorded_events, vertex};
use crate::progress::rawjson::RawJson;

#[test]
fn has_the_shape_of_solve_status() {
    let mut script = Script::new(RawJson::default());
    let name = "[stage-0 3/3] RUN test -n \"****\" && echo ok > /g";
    let digest = Digest::sha256(name);
    let announced = VertexEvent {
        started: None,
        inputs: vec![Digest::sha256("input")],
        ..vertex(name, 0.0, None)
    };
    script.event(&BuildEvent::Vertex(announced)).refresh(0.0);
    script
        .status(
            name,
            "transferring dockerfile:",
            (30, 0),
            (0.910_408_413, None),
        )
        .refresh(0.0);
    script
        .status(name, "sha256:ab", (5, 10), (0.1, Some(0.25)))
        .refresh(0.0);
    script
        .log(name, "hello\n")
        .miss(name, MissCause::FirstBuild)
        .refresh(0.0);
    script.now = 0.945_07;
    script.cached(name);
    let done = VertexEvent {
        error: Some("exit code: 1".to_owned()),
        progress_group: Some(ProgressGroup {
            id: "zmy2".to_owned(),
            name: "[1/2] COPY".to_owned(),
            weak: true,
        }),
        ..vertex("other", 0.1, Some(0.2))
    };
    script.event(&BuildEvent::Vertex(done)).refresh(0.0);
    script.warning(name, "Rule: text");
    let shown = script.finish().replace(digest.as_str(), "DIGEST");
    assert_snapshot!(shown, @r#"
    {"vertexes":[{"digest":"DIGEST","inputs":["sha256:c96c6d5be8d08a12e7b5cdc1b207fa6b2430974c86803d8891675e76fd992c20"],"name":"[stage-0 3/3] RUN test -n \"****\" \u0026\u0026 echo ok \u003e /g"}]}
    {"statuses":[{"id":"transferring dockerfile:","vertex":"DIGEST","name":"transferring","current":30,"timestamp":"2026-11-22T10:43:57Z","started":"2026-11-22T10:43:57.910408413Z"}]}
    {"statuses":[{"id":"sha256:ab","vertex":"DIGEST","total":10,"current":5,"timestamp":"2026-11-22T10:43:57.25Z","started":"2026-11-22T10:43:57.1Z","completed":"2026-11-22T10:43:57.25Z"}]}
    {"logs":[{"vertex":"DIGEST","stream":1,"data":"aGVsbG8K","timestamp":"2026-11-22T10:43:57Z"}]}
    {"vertexes":[{"digest":"DIGEST","name":"[stage-0 3/3] RUN test -n \"****\" \u0026\u0026 echo ok \u003e /g","started":"2026-11-22T10:43:57.94507Z","completed":"2026-11-22T10:43:57.94507Z","cached":true},{"digest":"sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa","name":"other","started":"2026-11-22T10:43:57.1Z","completed":"2026-11-22T10:43:57.2Z","error":"exit code: 1","progressGroup":{"id":"zmy2","name":"[1/2] COPY","weak":true}}]}
    {"warnings":[{"vertex":"DIGEST","level":1,"short":"UnVsZTogdGV4dA==","detail":["TmFtZXMgc2hvdWxkIGJlIGxvd2VyY2FzZQ=="],"url":"https://docs.docker.com/go/dockerfile/rule/stage-name-casing/","sourceInfo":{"filename":"Dockerfile","data":"RlJPTSBhIEFTIEIKUlVOIGMK","language":"Dockerfile"},"range":[{"start":{"line":1},"end":{"line":1}}]}]}
    "#);
}

#[test]
fn equals_buildkit_s_to_the_byte() {
    for recorded in RECORDED {
        let mut script = Script::new(RawJson::default());
        for line in recorded.lines() {
            for event in recorded_events(line) {
                script.event(&event);
            }
            script.refresh(0.0);
        }
        assert_eq!(script.finish(), recorded);
    }
}

#[test]
fn without_events_is_empty() {
    let mut script = Script::new(RawJson::default());
    script.miss("a", MissCause::FirstBuild).refresh(1.0);
    assert_eq!(script.finish(), "");
}
