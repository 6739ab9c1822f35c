//! `larder doctor` by the real binary.

use std::path::Path;

use larder_testkit::{Base, Project, Run, project};
use serde_json::Value;

/// What is wrong: line 5, line 6, and the file beside.
const DOCKERFILE: &str = "FROM base:1\n\
    \n\
    WORKDIR /app\n\
    \n\
    COPY . .\n\
    RUN pip install -r requirements.txt\n";
/// A base image with a version, and a program called pip.
const BASE: &str = "FROM busybox\n\
    RUN printf '#!/bin/sh\\ncat \"$3\"' > /bin/pip && chmod +x /bin/pip\n";

fn build_base(project: &Project) {
    project.write(&[("Dockerfile", BASE)]);
    let _ = project.build(&["--tag=base:1"]).success();
}

fn doctor(project: &Project, directory: &Path, args: &[&str]) -> Run {
    let mut command = project.larder().command(["doctor"].iter().chain(args));
    Run::of(command.current_dir(directory))
}

fn findings(project: &Project) -> Vec<Value> {
    let run = doctor(project, &project.context(), &["--format=json"]).exit(1);
    let lines = run.text();
    let lines = lines.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("each line is JSON")
}

fn write(project: &Project, dockerfile: &str) {
    project.write(&[
        ("Dockerfile", dockerfile),
        (".dockerignore", ".git\n"),
        ("requirements.txt", "a\n"),
        ("app.py", "1\n"),
        ("__pycache__/app.pyc", "cached"),
    ]);
}

#[test]
fn findings_have_a_place_a_cost_and_a_fix() {
    let project = project!(Base::Busybox);
    build_base(&project);
    write(&project, DOCKERFILE);
    let unbuilt = doctor(&project, &project.context(), &[]).exit(1);
    assert_eq!(
        unbuilt.text(),
        ".dockerignore: `.dockerignore` lets through what line 5 copies and no image needs: `__pycache__` (1 file, 6 B)\n  \
           fix: add these lines\n    \
             **/__pycache__\n\
         \n\
         Dockerfile:5: all files are copied before `pip install` in line 6: a change of any file installs everything again\n  \
           fix: copy what names the packages, install, and copy the rest after that\n    \
             COPY requirements.txt ./\n    \
             RUN pip install -r requirements.txt\n    \
             COPY . .\n\
         \n\
         Dockerfile:6: `pip install` has no cache mount: each time this step runs, everything is downloaded again\n  \
           fix: mount the tool's cache\n    \
             RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \\\n        \
             pip install -r requirements.txt\n\
         \n\
         3 findings"
    );

    let _ = project.build(&[]).success();
    for edit in ["2\n", "3\n"] {
        project.write(&[("app.py", edit)]);
        let _ = project.build(&[]).success();
    }
    let findings = findings(&project);
    let copied = &findings[1];
    assert_eq!(copied["rule"], "copy-before-install");
    assert_eq!(copied["file"], "Dockerfile");
    assert_eq!(copied["line"], 5);
    assert_eq!(copied["cost"]["hits"], 2, "{copied}");
    assert_eq!(copied["cost"]["builds"], 4, "{copied}");
    let built = doctor(&project, &project.context(), &[]).exit(1);
    assert!(
        built.text().contains(" s in 2 of the last 4 builds\n"),
        "{}",
        built.text()
    );
}

#[test]
fn nothing_is_found_once_it_is_mended() {
    let project = project!(Base::Busybox);
    build_base(&project);
    write(
        &project,
        &DOCKERFILE.replace(
            "COPY . .\nRUN pip install -r requirements.txt",
            "COPY requirements.txt ./\n\
             RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \\\n    \
             pip install -r requirements.txt\n\
             COPY . .",
        ),
    );
    project.write(&[(".dockerignore", ".git\n**/__pycache__\n")]);
    let _ = project.build(&[]).success();
    let run = doctor(&project, &project.context(), &[]).success();
    assert_eq!(run.text(), "nothing found that defeats the cache");
    let json = doctor(&project, &project.context(), &["--format=json"]).success();
    assert_eq!(json.text(), "");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/smartdiet");
    let run = doctor(&project, &example, &[]).success();
    assert_eq!(run.text(), "nothing found that defeats the cache");
}

#[test]
fn compose_files_lead_to_dockerfiles_and_caches() {
    let project = project!(Base::Busybox);
    let compose = "services:\n  web:\n    build:\n      context: web\n      cache_from:\n        - type=local,src=cache\n";
    project.write(&[
        ("Dockerfile", "FROM busybox\nRUN echo other\n"),
        ("web/Dockerfile", "FROM busybox\nCOPY . /\nRUN cat a\n"),
        ("web/.git/index", ""),
        ("web/.dockerignore", ""),
        ("compose.yaml", compose),
    ]);
    let places = |findings: &[Value]| -> Vec<String> {
        let place = |one: &Value| format!("{}:{} {}", one["file"], one["line"], one["rule"]);
        findings
            .iter()
            .map(|one| place(one).replace('"', ""))
            .collect()
    };
    // The cache of something else.
    let cache = project.context().join("cache");
    let to = format!("--cache-to=type=local,dest={}", cache.display());
    let _ = project.build(&[&to]).success();
    for content in ["1", "2", "3"] {
        let always = [
            "Dockerfile:1 unpinned-base",
            "web/.dockerignore:null leaky-context",
            "web/Dockerfile:1 unpinned-base",
        ];
        assert_eq!(places(&findings(&project)), always);
        project.write(&[("web/a", content)]);
        let mut build = project.larder().command(["compose", "build"]);
        let _ = Run::of(build.current_dir(project.context())).success();
    }
    let found = findings(&project);
    let places = places(&found);
    assert_eq!(places.len(), 4, "{places:?}");
    assert!(
        places.contains(&"compose.yaml:4 cold-source".to_owned()),
        "{places:?}"
    );

    let empty = doctor(&project, project.scratch().path(), &[]).exit(1);
    let _ = empty.says("has neither a Dockerfile nor a compose file that builds something");
    let _ = doctor(&project, &project.context(), &["--file=none"])
        .exit(1)
        .says("none");
}
