use insta::assert_snapshot;
use larder_engine::event::{BuildEvent, FileChange, MissCause, ProgressGroup, VertexEvent};

use super::{RECORDED, Script, recorded_events, vertex};
use crate::progress::plain::Plain;

const BASE: &str = "docker.io/library/busybox:latest@sha256:9790ee64421762efc0b59049e8ce9506d9e433dc919b4237b052b2125e8f8f80";

fn plain() -> Script<Plain> {
    Script::new(Plain::new("", false))
}

/// The first vertices of every build, with the bytes of its Dockerfile.
fn load_definition(script: &mut Script<Plain>, bytes: u64) {
    let name = "[internal] load build definition from Dockerfile";
    script.vertex(name, 0.0, 0.000_1).vertex(name, 0.001, None);
    script.status(name, "transferring dockerfile:", (0, 0), (0.001, None));
    script.status(
        name,
        "transferring dockerfile:",
        (bytes, 0),
        (0.001, Some(0.005)),
    );
    script.vertex(name, 0.001, 0.008);
}

fn load_ignore(script: &mut Script<Plain>) {
    let name = "[internal] load .dockerignore";
    script.vertex(name, 0.02, None);
    script.status(name, "transferring context:", (2, 0), (0.02, Some(0.025)));
    script.vertex(name, 0.02, 0.026);
}

#[test]
fn guide() {
    let mut script = plain();
    load_definition(&mut script, 253);
    script.vertex(
        "[internal] load metadata for docker.io/library/busybox:latest",
        0.01,
        0.019,
    );
    load_ignore(&mut script);
    let context = "[internal] load build context";
    script.vertex(context, 0.03, None);
    script.status(
        context,
        "transferring context:",
        (5440, 0),
        (0.03, Some(0.034)),
    );
    script.vertex(context, 0.03, 0.035);
    let base = format!("[stage-0 1/5] FROM {BASE}");
    let layer = "sha256:00a68cc2cc50634b0e558e2225cf20d5280741ac6462418ee2f9de08bd72d88c";
    script.vertex(&base, 0.03, None);
    script.status(
        &base,
        &format!("resolve {BASE}"),
        (0, 0),
        (0.03, Some(0.034)),
    );
    script.status(&base, layer, (1_041_000, 1_041_000), (0.04, Some(0.048)));
    script.status(
        &base,
        &format!("extracting {layer}"),
        (0, 0),
        (0.05, Some(0.15)),
    );
    script.vertex(&base, 0.03, 0.23);
    script.vertex("[stage-0 2/5] WORKDIR /app", 0.24, 0.25);
    script.vertex("[stage-0 3/5] COPY requirements.txt .", 0.26, 0.28);
    let run = "[stage-0 4/5] RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked     cp requirements.txt /installed";
    script.vertex(run, 0.3, 0.39);
    script.vertex("[stage-0 5/5] COPY . .", 0.4, 0.41);
    let export = "exporting to oci image format";
    script.vertex(export, 0.41, None);
    script.status(export, "exporting layers", (0, 0), (0.41, Some(0.43)));
    script.status(
        export,
        "exporting manifest sha256:2d8b",
        (0, 0),
        (0.45, Some(0.455)),
    );
    script.status(
        export,
        "exporting config sha256:b81d",
        (0, 0),
        (0.46, Some(0.465)),
    );
    script.status(export, "sending tarball", (0, 0), (0.47, Some(0.475)));
    script.vertex(export, 0.41, 0.51);
    assert_snapshot!(script.finish(), @"
    #1 [internal] load build definition from Dockerfile
    #1 transferring dockerfile: 253B done
    #1 DONE 0.0s

    #2 [internal] load metadata for docker.io/library/busybox:latest
    #2 DONE 0.0s

    #3 [internal] load .dockerignore
    #3 transferring context: 2B done
    #3 DONE 0.0s

    #4 [internal] load build context
    #4 transferring context: 5.44kB done
    #4 DONE 0.0s

    #5 [stage-0 1/5] FROM docker.io/library/busybox:latest@sha256:9790ee64421762efc0b59049e8ce9506d9e433dc919b4237b052b2125e8f8f80
    #5 resolve docker.io/library/busybox:latest@sha256:9790ee64421762efc0b59049e8ce9506d9e433dc919b4237b052b2125e8f8f80 done
    #5 sha256:00a68cc2cc50634b0e558e2225cf20d5280741ac6462418ee2f9de08bd72d88c 1.04MB / 1.04MB done
    #5 extracting sha256:00a68cc2cc50634b0e558e2225cf20d5280741ac6462418ee2f9de08bd72d88c 0.1s done
    #5 DONE 0.2s

    #6 [stage-0 2/5] WORKDIR /app
    #6 DONE 0.0s

    #7 [stage-0 3/5] COPY requirements.txt .
    #7 DONE 0.0s

    #8 [stage-0 4/5] RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked     cp requirements.txt /installed
    #8 DONE 0.1s

    #9 [stage-0 5/5] COPY . .
    #9 DONE 0.0s

    #10 exporting to oci image format
    #10 exporting layers 0.0s done
    #10 exporting manifest sha256:2d8b done
    #10 exporting config sha256:b81d done
    #10 sending tarball done
    #10 DONE 0.1s
    ");
}

#[test]
fn parallel_steps_take_turns() {
    let mut script = plain();
    let (a, b) = ("[a 2/2] RUN echo a > /a", "[b 2/2] RUN echo b > /b");
    script.vertex(b, 0.0, None).refresh(0.1);
    script.vertex(a, 0.05, None).log(b, "b1\n").refresh(0.2);
    script.log(a, "a1\n").log(b, "b2\nb3 goes ").refresh(0.3);
    script.vertex(b, 0.0, 0.35).log(a, "a2\n").refresh(0.4);
    script.vertex(a, 0.05, 12.0).refresh(12.0);
    assert_snapshot!(script.finish(), @"
    #1 [b 2/2] RUN echo b > /b
    #1 0.100 b1
    #1 0.200 b2
    #1 0.200 b3 goes 
    #1 DONE 0.3s

    #2 [a 2/2] RUN echo a > /a
    #2 0.150 a1
    #2 0.250 a2
    #2 DONE 11.9s
    ");
}

#[test]
fn a_silent_display_goes_to_the_busier_step() {
    let mut script = plain();
    script.vertex("slow", 0.0, None).refresh(0.1);
    script.now = 1.0;
    script
        .vertex("busy", 1.0, None)
        .log("busy", "1\n")
        .refresh(1.1);
    assert_eq!(script.take(), "#1 slow\n");
    for second in 2..20 {
        script.now = f64::from(second);
        script.log("busy", "more\n").refresh(f64::from(second));
    }
    let shown = script.take();
    assert!(
        shown.starts_with("#1 ...\n\n#2 busy\n#2 0.000 1\n#2 1.000 more\n"),
        "{shown}"
    );
    assert!(shown.contains("#2 18.00 more\n"), "{shown}");
}

#[test]
fn groups_are_one_step() {
    let member = |name: &str, group: &str, weak: bool, started: f64, completed: Option<f64>| {
        BuildEvent::Vertex(VertexEvent {
            progress_group: Some(ProgressGroup {
                id: group.to_owned(),
                name: group.to_owned(),
                weak,
            }),
            ..vertex(name, started, completed)
        })
    };
    let mut script = plain();
    let (first, second) = ("[1/2] COPY --link a.txt /x/", "[2/2] COPY --link src /y/");
    // Both copies are weak; the first has no merge, as it lands on nothing.
    script.event(&member("copy 1", first, true, 0.0, Some(0.01)));
    script
        .event(&member("copy 2", second, true, 0.0, Some(0.01)))
        .refresh(0.1);
    assert_eq!(script.take(), "");
    script
        .event(&member("merge 2", second, false, 0.1, Some(0.13)))
        .refresh(0.2);
    assert_eq!(
        script.take(),
        "#1 [2/2] COPY --link src /y/\n#1 DONE 0.0s\n"
    );
    // More work on it later shows it again.
    script.event(&member("merge 2", second, false, 0.3, Some(0.52)));
    assert_eq!(
        script.finish(),
        "\n#1 [2/2] COPY --link src /y/\n#1 DONE 0.3s\n"
    );
}

#[test]
fn a_group_is_cached_only_as_a_whole() {
    let member = |name: &str, cached: bool| {
        BuildEvent::Vertex(VertexEvent {
            cached,
            progress_group: Some(ProgressGroup {
                id: "g".to_owned(),
                name: "COPY --link".to_owned(),
                weak: false,
            }),
            ..vertex(name, 0.0, Some(0.0))
        })
    };
    let mut all = plain();
    all.event(&member("copy", true))
        .event(&member("merge", true));
    assert_eq!(all.finish(), "#1 COPY --link\n#1 CACHED\n");
    let mut some = plain();
    some.event(&member("copy", true))
        .event(&member("merge", false));
    assert_eq!(some.finish(), "#1 COPY --link\n#1 DONE 0.0s\n");
}

#[test]
fn misses_and_warnings_are_lines_of_their_step() {
    let mut script = Script::new(Plain::new("building with \"default\" instance", false));
    let definition = "[internal] load build definition from Dockerfile";
    script.vertex(definition, 0.0, None);
    script.warning(
        definition,
        "StageNameCasing: Stage name 'B' should be lowercase (line 1)",
    );
    script.vertex(definition, 0.0, 0.1);
    script.now = 0.2;
    script.cached("[1/3] FROM a");
    let copy = "[2/3] COPY src .";
    script.event(&BuildEvent::Vertex(VertexEvent {
        started: None,
        ..vertex(copy, 0.0, None)
    }));
    let cause = MissCause::File {
        path: "src/app.py".into(),
        change: FileChange::Content,
        others_count: 2,
    };
    script.miss(copy, cause).refresh(0.3);
    script.vertex(copy, 0.3, None).refresh(0.4);
    script.vertex(copy, 0.3, 0.52);
    assert_snapshot!(script.finish(), @r#"
    #0 building with "default" instance

    #1 [internal] load build definition from Dockerfile
    #1 WARN: StageNameCasing: Stage name 'B' should be lowercase (line 1)
    #1 DONE 0.1s

    #2 [1/3] FROM a
    #2 CACHED

    #3 [2/3] COPY src .
    #3 not cached: `src/app.py` changed, and 2 more files
    #3 DONE 0.2s

     1 warning found (use docker --debug to expand):
     - StageNameCasing: Stage name 'B' should be lowercase (line 1)
    "#);
}

#[test]
fn warnings_are_expanded_with_debug() {
    let mut script = Script::new(Plain::new("", true));
    script.vertex("load", 0.0, 0.0);
    script.warning(
        "load",
        "StageNameCasing: Stage name 'B' should be lowercase (line 1)",
    );
    assert_snapshot!(script.finish(), @"
    #1 load
    #1 WARN: StageNameCasing: Stage name 'B' should be lowercase (line 1)
    #1 DONE 0.0s

     1 warning found:
     - StageNameCasing: Stage name 'B' should be lowercase (line 1)
    Names should be lowercase
    More info: https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
    Dockerfile:1
    --------------------
       1 | >>> FROM a AS B
       2 |     RUN c
       3 |     
    --------------------
    ");
}

#[test]
fn times_of_output_lose_digits() {
    let mut script = plain();
    script.vertex("RUN x", 0.0, None);
    for seconds in [0.293, 9.999_4, 10.0, 99.99, 100.04, 3600.0] {
        script.now = seconds;
        script.log("RUN x", "text\n");
    }
    script.vertex("RUN x", 0.0, 3600.5);
    assert_eq!(
        script.finish(),
        "#1 RUN x\n#1 0.293 text\n#1 9.999 text\n#1 10.00 text\n#1 99.99 text\n#1 100.0 text\n\
         #1 3600.0 text\n#1 DONE 3600.5s\n"
    );
}

#[test]
fn an_unfinished_line_goes_on_or_starts_anew() {
    let mut script = plain();
    script.vertex("a", 0.0, None).log("a", "one").refresh(0.1);
    script.log("a", " two").refresh(0.2);
    assert_eq!(script.take(), "#1 a\n#1 0.000 one two");
    script.vertex("b", 0.2, 0.3).refresh(0.4);
    assert_eq!(
        script.take(),
        "\n#1 ...\n\n#2 b\n#2 DONE 0.1s\n\n#1 a\n#1 0.000 one two"
    );
    script.log("a", " three\n").refresh(0.5);
    assert_eq!(script.take(), " three\n");
    script.log("a", "end").vertex("a", 0.0, 0.6);
    assert_eq!(script.finish(), "#1 0.500 end\n#1 DONE 0.6s\n");
}

#[test]
fn statuses_are_repeated_only_after_progress() {
    let mut script = plain();
    script.vertex("pull", 0.0, None);
    for (second, current) in [(1, 10), (2, 12), (3, 20), (4, 21), (9, 22)] {
        script.now = f64::from(second);
        script.status("pull", "sha256:ab", (current, 100), (0.0, None));
        script.refresh(f64::from(second));
    }
    script.status("pull", "sha256:ab", (100, 100), (0.0, Some(9.5)));
    script.vertex("pull", 0.0, 9.6);
    assert_snapshot!(script.finish(), @"
    #1 pull
    #1 sha256:ab 10B / 100B 1.0s
    #1 sha256:ab 20B / 100B 3.0s
    #1 sha256:ab 22B / 100B 9.0s
    #1 sha256:ab 100B / 100B 9.5s done
    #1 DONE 9.6s
    ");
}

#[test]
fn failures_repeat_the_last_lines() {
    let mut script = plain();
    let run = "[2/3] RUN make";
    script.vertex(run, 0.0, None);
    script.vertex("[other 2/2] RUN sleep 9", 0.0, None);
    script.now = 0.08;
    for line in 1..=12 {
        script.log(run, &format!("line {line}\n"));
    }
    let error = "process \"/bin/sh -c make\" did not complete successfully: exit code: 2";
    script.failed(run, 0.0, 0.1, error);
    script.failed(
        "[other 2/2] RUN sleep 9",
        0.0,
        0.11,
        "process canceled: context canceled",
    );
    assert_snapshot!(script.finish(), @r#"
    #1 [2/3] RUN make
    #1 0.080 line 1
    #1 0.080 line 2
    #1 0.080 line 3
    #1 0.080 line 4
    #1 0.080 line 5
    #1 0.080 line 6
    #1 0.080 line 7
    #1 0.080 line 8
    #1 0.080 line 9
    #1 0.080 line 10
    #1 0.080 line 11
    #1 0.080 line 12
    #1 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2

    #2 [other 2/2] RUN sleep 9
    #2 CANCELED
    ------
     > [2/3] RUN make:
    0.080 line 3
    0.080 line 4
    0.080 line 5
    0.080 line 6
    0.080 line 7
    0.080 line 8
    0.080 line 9
    0.080 line 10
    0.080 line 11
    0.080 line 12
    ------
    "#);
}

#[test]
fn long_lines_are_broken() {
    let mut script = plain();
    script.vertex("RUN x", 0.0, None);
    let long = "y".repeat(200_000);
    script
        .log("RUN x", &long)
        .log("RUN x", "\n")
        .vertex("RUN x", 0.0, 1.0);
    let shown = script.finish();
    assert_eq!(
        shown
            .lines()
            .filter(|line| line.starts_with("#1 0.000 y"))
            .count(),
        4
    );
    assert_eq!(shown.bytes().filter(|&byte| byte == b'y').count(), 200_000);
}

#[test]
fn of_recorded_builds() {
    let mut script = plain();
    for event in RECORDED[0].lines().flat_map(recorded_events) {
        script.event(&event);
    }
    assert_snapshot!(script.finish(), @"
    #1 [internal] load build definition from Dockerfile
    #1 transferring dockerfile: 253B done
    #1 DONE 0.0s

    #2 [internal] load metadata for docker.io/library/busybox:latest
    #2 DONE 0.0s

    #3 [internal] load .dockerignore
    #3 transferring context: 2B done
    #3 DONE 0.0s

    #4 [stage-0 1/5] FROM docker.io/library/busybox:latest@sha256:9790ee64421762efc0b59049e8ce9506d9e433dc919b4237b052b2125e8f8f80
    #4 resolve docker.io/library/busybox:latest@sha256:9790ee64421762efc0b59049e8ce9506d9e433dc919b4237b052b2125e8f8f80 done
    #4 DONE 0.0s

    #5 [internal] load build context
    #5 transferring context: 291B done
    #5 DONE 0.0s

    #6 [stage-0 2/5] WORKDIR /app
    #6 CACHED

    #7 [stage-0 3/5] COPY requirements.txt .
    #7 CACHED

    #8 [stage-0 4/5] RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked     cp requirements.txt /installed
    #8 CACHED

    #9 [stage-0 5/5] COPY . .
    #9 CACHED
    ");
}
