use std::path::PathBuf;

use larder_dockerfile::Dockerfile;

use super::*;
use crate::event::{FileChange, MissCause};

fn patient(text: &str) -> Patient {
    let dockerfile = Dockerfile::parse(text.as_bytes(), "Dockerfile").expect("it parses");
    Patient {
        file: "Dockerfile".to_owned(),
        stages: dockerfile.view(),
        ..Patient::default()
    }
}

/// Returns findings as `LINE NAME`.
fn names(findings: &[Finding]) -> Vec<String> {
    let named = |finding: &Finding| format!("{} {}", finding.line, finding.kind.name());
    findings.iter().map(named).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let findings = diagnose(&patient(text));
    assert_eq!(names(&findings), expected, "{text}\n{findings:#?}");
}

#[track_caller]
fn fix(text: &str, kind: FindingKind) -> String {
    let findings = diagnose(&patient(text));
    let found = findings.iter().find(|finding| finding.kind == kind);
    found
        .unwrap_or_else(|| panic!("{findings:#?}"))
        .fix
        .join("\n")
}

const APT: &str = "--mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked";
const KEEP: &str = "RUN rm -f /etc/apt/apt.conf.d/docker-clean";

#[test]
fn package_managers_need_a_cache_mount() {
    for (command, target) in [
        ("pip install x", "/root/.cache/pip"),
        ("python -m pip install -r r.txt", "/root/.cache/pip"),
        ("uv sync", "/root/.cache/uv"),
        ("poetry install", "/root/.cache/pypoetry"),
        ("npm ci", "/root/.npm"),
        ("yarn install", "/usr/local/share/.cache/yarn"),
        ("pnpm install", "/root/.local/share/pnpm/store"),
        ("cargo build", "/usr/local/cargo/registry"),
        ("go build ./...", "/go/pkg/mod"),
        ("mvn package", "/root/.m2"),
        ("./gradlew build", "/root/.gradle"),
        ("bundle install", "/usr/local/bundle/cache"),
        ("composer install", "/tmp/cache"),
        ("dnf install -y x", "/var/cache/dnf"),
        ("apk add x", "/etc/apk/cache"),
    ] {
        check(&format!("FROM a:1\nRUN {command}\n"), &["2 no-cache-mount"]);
        let fixed = fix(
            &format!("FROM a:1\nRUN {command}\n"),
            FindingKind::NoCacheMount,
        );
        assert!(
            fixed.contains(&format!("RUN --mount=type=cache,target={target}")),
            "{fixed}"
        );
        assert!(fixed.ends_with(&format!("    {command}")), "{fixed}");
        let mended = format!("FROM a:1\n{fixed}\n");
        check(&mended, &[]);
    }
}

#[test]
fn a_cache_mount_may_lie_elsewhere() {
    check(
        "FROM a:1\nENV PIP_CACHE_DIR=/c\nRUN --mount=type=cache,target=/c pip install x\n",
        &[],
    );
    check(
        "FROM a:1\nRUN --mount=type=cache,target=/c pip install --cache-dir /c x\n",
        &[],
    );
    check(
        "FROM a:1\nRUN --mount=type=cache,id=pnpm,target=/pnpm/store pnpm install\n",
        &[],
    );
    check(
        "FROM a:1\nRUN --mount=type=cache,target=/root/.npm npm ci && pip install x\n",
        &["2 no-cache-mount"],
    );
    check(
        "FROM a:1\nRUN [\"pip\", \"install\", \"x\"]\n",
        &["2 no-cache-mount"],
    );
    check(
        "FROM a:1\nRUN <<E\nset -e\npip install x\nE\n",
        &["2 no-cache-mount"],
    );
    check(
        "FROM a:1\nRUN echo pip install x; pip list; pip install --no-index ./x.whl\n",
        &[],
    );
}

#[test]
fn the_fix_knows_who_runs_the_step() {
    assert_eq!(
        fix(
            "FROM a:1\nUSER 1000:1000\nRUN pip install --no-cache-dir x\n",
            FindingKind::NoCacheMount
        ),
        "RUN --mount=type=cache,target=/root/.cache/pip,uid=1000,sharing=locked \\\n    pip install x"
    );
    assert_eq!(
        fix(
            "FROM a:1 AS b\nUSER app\nFROM b\nRUN npm ci\n",
            FindingKind::NoCacheMount
        ),
        "RUN --mount=type=cache,target=/home/app/.npm,uid=1000 \\\n    npm ci"
    );
    assert_eq!(
        fix(
            "FROM a:1\nENV UV_CACHE_DIR=/uv\nRUN --network=host uv sync\n",
            FindingKind::NoCacheMount
        ),
        "RUN --mount=type=cache,target=/uv \\\n    --network=host uv sync"
    );
}

#[test]
fn caches_are_not_turned_off_beside_their_mounts() {
    let mount = "--mount=type=cache,target=/root/.cache/pip,sharing=locked";
    check(
        &format!("FROM a:1\nRUN {mount} pip install --no-cache-dir x\n"),
        &["2 cache-off"],
    );
    check(
        &format!("FROM a:1\nENV PIP_NO_CACHE_DIR=1\nRUN {mount} pip install x\n"),
        &["2 cache-off"],
    );
    check(
        &format!("FROM a:1\nENV PIP_NO_CACHE_DIR=off\nRUN {mount} pip install x\n"),
        &[],
    );
    check(
        &format!("FROM a:1\nRUN {mount} PIP_NO_CACHE_DIR=1 pip install x\n"),
        &["2 cache-off"],
    );
    check(
        &format!("FROM a:1\nRUN {mount} pip install x && rm -rf /root/.cache/pip\n"),
        &["2 cache-emptied"],
    );
    check(
        &format!("FROM a:1\nRUN {mount} pip install x && pip cache purge\n"),
        &["2 cache-emptied"],
    );
    check(
        &format!(
            "FROM a:1\n{KEEP}\nRUN {APT} apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*\n"
        ),
        &["3 cache-emptied"],
    );
    check(
        &format!("FROM a:1\nRUN {mount} pip install x && rm -rf /tmp/x\n"),
        &[],
    );
}

#[test]
fn shared_caches_are_locked_where_that_matters() {
    let pip = "RUN --mount=type=cache,target=/root/.cache/pip pip install x\n";
    check(&format!("FROM a:1\n{pip}"), &[]);
    check(
        &format!("FROM a:1\n{pip}FROM a:1\n{pip}"),
        &["2 unlocked-cache", "4 unlocked-cache"],
    );
    check(
        "FROM a:1\nRUN --mount=type=cache,target=/var/cache/dnf dnf install -y x\n",
        &["2 unlocked-cache"],
    );
    check(
        "FROM a:1\nRUN --mount=type=cache,target=/root/.npm npm ci\n",
        &[],
    );
}

#[test]
fn apt_needs_two_locked_mounts_and_keeps_its_packages() {
    let install = "apt-get update && apt-get install -y x";
    check(&format!("FROM a:1\nRUN {install}\n"), &["2 apt-mounts"]);
    check(
        &format!(
            "FROM a:1\n{KEEP}\nRUN --mount=type=cache,target=/var/cache/apt,sharing=locked {install}\n"
        ),
        &["3 apt-mounts"],
    );
    check(
        &format!(
            "FROM a:1\n{KEEP}\nRUN {} {install}\n",
            APT.replace(",sharing=locked", "")
        ),
        &["3 apt-mounts"],
    );
    check(
        &format!("FROM a:1\nRUN {APT} {install}\n"),
        &["2 docker-clean"],
    );
    check(&format!("FROM a:1\n{KEEP}\nRUN {APT} {install}\n"), &[]);
    check(
        &format!("FROM a:1 AS b\n{KEEP}\nFROM b\nRUN {APT} {install}\n"),
        &[],
    );
    let bare = fix(
        &format!("FROM a:1\nRUN {install}\n"),
        FindingKind::AptMounts,
    );
    check(&format!("FROM a:1\n{bare}\n"), &[]);
    let alone = "FROM a:1\nRUN apt-get update\nRUN apt-get install -y x\n";
    check(alone, &["2 apt-update-alone", "3 apt-mounts"]);
    let together = fix(alone, FindingKind::AptUpdateAlone);
    check(&format!("FROM a:1\n{KEEP}\n{together}\n"), &[]);
    assert!(
        together.ends_with("apt-get update && apt-get install -y x"),
        "{together}"
    );
    check("FROM a:1\nRUN apt-get update\n", &[]);
    let fixed = fix(
        &format!("FROM a:1\nRUN --mount=type=cache,target=/var/cache/apt {install}\n"),
        FindingKind::AptMounts,
    );
    check(&format!("FROM a:1\n{KEEP}\n{fixed}\n"), &[]);
}

#[test]
fn packages_are_installed_before_all_files_are_copied() {
    let mount = "--mount=type=cache,target=/root/.cache/pip,sharing=locked";
    let text = format!(
        "FROM a:1\nWORKDIR /app\nCOPY . .\nRUN {mount} pip install -r reqs/base.txt -r dev.txt\n"
    );
    check(&text, &["3 copy-before-install"]);
    assert_eq!(
        fix(&text, FindingKind::CopyBeforeInstall),
        format!(
            "COPY dev.txt ./\nCOPY reqs/base.txt reqs/base.txt\nRUN {mount} pip install -r reqs/base.txt -r dev.txt\nCOPY . ."
        )
    );
    let both = format!(
        "FROM a:1\n{KEEP}\nCOPY . .\nRUN {APT} apt-get update && apt-get install -y x\nRUN {mount} pip install -r r.txt\n"
    );
    check(&both, &["3 copy-before-install"]);
    let moved = fix(&both, FindingKind::CopyBeforeInstall);
    let heads: Vec<&str> = moved
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(heads, ["RUN", "COPY", "RUN", "COPY"], "{moved}");
    check(&format!("FROM a:1\n{KEEP}\n{moved}\n"), &[]);
    check(
        &format!("FROM a:1\nCOPY . /src/\nRUN {mount} pip install .\n"),
        &[],
    );
    check(
        &format!("FROM a:1\nCOPY r.txt .\nRUN {mount} pip install -r r.txt\nCOPY . .\n"),
        &[],
    );
    check(
        &format!(
            "FROM a:1\nCOPY r.txt .\nRUN {mount} pip install -r r.txt\nCOPY . .\nRUN {mount} pip install x\n"
        ),
        &[],
    );
    let npm = "RUN --mount=type=cache,target=/root/.npm npm ci\n";
    check(
        &format!("FROM a:1\nCOPY . .\n{npm}"),
        &["2 copy-before-install"],
    );
    check(&format!("FROM a:1\nCOPY src .\n{npm}"), &[]);
    check(&format!("FROM a:1 AS b\nCOPY . .\nFROM a:1\n{npm}"), &[]);
    check(&format!("FROM a:1\nCOPY --from=b . .\n{npm}"), &[]);
}

fn step(instruction: &str, cause: Option<MissCause>, duration_ms: u64) -> PastStep {
    PastStep {
        instruction: instruction.to_owned(),
        cause,
        duration_ms,
        details: Vec::new(),
    }
}

fn ran_again() -> MissCause {
    MissCause::Input {
        step: "x".to_owned(),
    }
}

fn file(path: &str) -> MissCause {
    MissCause::File {
        path: PathBuf::from(path),
        change: FileChange::Content,
        others_count: 0,
    }
}

fn build(steps: Vec<PastStep>) -> PastBuild {
    PastBuild {
        steps,
        imports: Vec::new(),
    }
}

#[test]
fn variables_that_change_stand_below_what_does_not_read_them() {
    let npm = "RUN --mount=type=cache,target=/root/.npm npm ci";
    check(
        &format!("FROM a:1\nARG GIT_SHA\n{npm}\nLABEL rev=$GIT_SHA\n"),
        &["2 volatile-variable"],
    );
    check(
        &format!("FROM a:1\n{npm}\nARG GIT_SHA\nLABEL rev=$GIT_SHA\n"),
        &[],
    );
    check(
        &format!("FROM a:1\nARG GIT_SHA\nRUN echo $GIT_SHA\n{npm}\n"),
        &[],
    );
    check(&format!("FROM a:1\nARG VERSION=1\n{npm}\n"), &[]);
    check(
        &format!("FROM a:1\nARG GIT_SHA\nENV VERSION=1-$GIT_SHA\n{npm}\n"),
        &["3 volatile-variable"],
    );

    // What the history says counts more than a name.
    let text = format!("FROM a:1\nENV RELEASE=3 TZ=UTC\n{npm}\nRUN use $RELEASE\n");
    let changed = |name: &str| {
        let cause = MissCause::Env {
            name: name.to_owned(),
            line: Some(2),
        };
        build(vec![
            step(npm, Some(cause), 4_000),
            step("RUN use $RELEASE", Some(ran_again()), 500),
        ])
    };
    let mut patient = patient(&text);
    patient.history = vec![
        changed("RELEASE"),
        build(vec![step(npm, None, 0)]),
        changed("TZ"),
    ];
    assert_eq!(diagnose(&patient), []);
    patient.history.push(changed("RELEASE"));
    let findings = diagnose(&patient);
    assert_eq!(names(&findings), ["2 volatile-variable"]);
    assert_eq!(findings[0].fix, ["ENV RELEASE=3"]);
    let cost = Cost {
        hits: 2,
        builds: 4,
        milliseconds: 9_000,
    };
    assert_eq!(findings[0].cost, Some(cost));
}

#[test]
fn bases_have_versions() {
    check("FROM python\n", &["1 unpinned-base"]);
    check("FROM python:latest AS a\nFROM a\n", &["1 unpinned-base"]);
    check("ARG V\nFROM python:${V:-3.12}\nFROM scratch\n", &[]);
    check("ARG IMAGE\nFROM $IMAGE\n", &[]);
    let digest = "0".repeat(64);
    check(&format!("FROM python@sha256:{digest}\n"), &[]);
    assert_eq!(
        fix("FROM python:latest AS a\n", FindingKind::UnpinnedBase),
        "FROM python:VERSION AS a"
    );
}

fn context() -> Survey {
    Survey {
        ignore_file: Some(".dockerignore".to_owned()),
        junk: vec![
            Junk {
                pattern: ".git".to_owned(),
                example: ".git".to_owned(),
                files_count: 800,
                bytes: 45_100_000,
            },
            Junk {
                pattern: "**/__pycache__".to_owned(),
                example: "src/__pycache__".to_owned(),
                files_count: 1,
                bytes: 900,
            },
        ],
        ..Survey::default()
    }
}

#[test]
fn contexts_hold_what_images_need() {
    let mut patient = patient("FROM a:1\nCOPY src /src\nCOPY . .\n");
    patient.context = Some(context());
    let findings = diagnose(&patient);
    assert_eq!(names(&findings), ["0 leaky-context", "0 leaky-context"]);
    assert_eq!(findings[0].fix, ["**/__pycache__"]);
    assert_eq!(
        findings[1].problem,
        "`.dockerignore` lets through what line 3 copies and no image needs: `.git` (800 files, 45.1 MB)"
    );

    patient.stages[0].instructions.remove(0);
    patient.context = Some(Survey {
        ignore_file: None,
        ..context()
    });
    let changed = step("COPY . .", Some(file("/.git/index")), 300);
    patient.history = vec![build(vec![changed, step("RUN x", Some(ran_again()), 700)])];
    let findings = diagnose(&patient);
    assert_eq!(names(&findings), ["0 no-ignore-file"]);
    assert_eq!(
        findings[0].fix,
        [".git", "**/__pycache__", "Dockerfile*", ".dockerignore"]
    );
    assert_eq!(findings[0].cost.map(|cost| cost.milliseconds), Some(1_000));

    patient.context = Some(Survey {
        ignore_file: Some(".dockerignore".to_owned()),
        ..Survey::default()
    });
    assert_eq!(diagnose(&patient), []);

    // Without one, the Dockerfile is copied; where it lies elsewhere, nothing is wrong.
    for (top, expected) in [("Dockerfile", &["0 no-ignore-file"][..]), ("app.py", &[])] {
        patient.context = Some(Survey {
            top: vec![top.to_owned()],
            ..Survey::default()
        });
        assert_eq!(names(&diagnose(&patient)), expected, "{top}");
    }
}

#[test]
fn large_files_and_modes_are_told_of_once() {
    let mut patient = patient("FROM a:1\nCOPY data /data\nCOPY . .\n");
    patient.context = Some(Survey {
        ignore_file: Some(".dockerignore".to_owned()),
        large: vec![
            ("data/a.csv".to_owned(), 20_000_000),
            ("b.bin".to_owned(), 11_000_000),
        ],
        group_writable: vec!["src/a.py".to_owned()],
        others: vec!["src/b.py".to_owned()],
        ..Survey::default()
    });
    let findings = diagnose(&patient);
    assert_eq!(names(&findings), ["2 leaky-context", "3 umask-modes"]);
    assert_eq!(findings[0].fix, ["data/a.csv"]);
    assert!(
        findings[1]
            .problem
            .starts_with("`src/a.py` can be written by its group")
    );
    patient.context.as_mut().unwrap().others.clear();
    assert_eq!(names(&diagnose(&patient)), ["2 leaky-context"]);
}

#[test]
fn cache_sources_are_of_use() {
    let mut patient = patient("FROM a:1\nRUN x\n");
    patient.sources = vec![CacheSource {
        file: "compose.yaml".to_owned(),
        line: 4,
        name: "docker.io/library/a:cache".to_owned(),
    }];
    let imported = |hits| PastBuild {
        steps: Vec::new(),
        imports: vec![ImportRecord {
            name: "docker.io/library/a:cache".to_owned(),
            hits,
            duration_ms: 200,
        }],
    };
    patient.history = vec![imported(0), imported(0)];
    assert_eq!(diagnose(&patient), []);
    patient.history.push(imported(0));
    let findings = diagnose(&patient);
    assert_eq!(names(&findings), ["4 cold-source"]);
    assert_eq!(findings[0].file, "compose.yaml");
    assert_eq!(findings[0].cost.map(|cost| cost.milliseconds), Some(600));
    patient.history.push(imported(1));
    assert_eq!(diagnose(&patient), []);
}

#[test]
fn costs_are_those_of_the_step_as_it_is_written() {
    let mut patient = patient("FROM a:1\nRUN pip install x\n");
    patient.history = vec![
        build(vec![step("RUN pip install x", Some(ran_again()), 30_000)]),
        build(vec![step("RUN pip install x", None, 0)]),
        build(vec![step("RUN pip install y", Some(ran_again()), 9_000)]),
        build(vec![step(
            "RUN pip install x",
            Some(MissCause::FirstBuild),
            31_280,
        )]),
    ];
    let findings = diagnose(&patient);
    let cost = findings[0].cost.unwrap();
    assert_eq!(cost.to_string(), "61.3 s in 2 of the last 4 builds");
    patient.history.truncate(1);
    let cost = diagnose(&patient)[0].cost.unwrap();
    assert_eq!(cost.to_string(), "30.0 s in the one build on record");
}

#[test]
fn surveys_leave_out_what_the_ignore_file_does() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, bytes: usize| {
        let path = directory.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, vec![b'x'; bytes]).unwrap();
    };
    for path in [
        ".git/config",
        "web/node_modules/a/b.js",
        "deploy/.env",
        "src/a.py",
        "src/__pycache__/a.pyc",
        "src/b.pyc",
        "kept/.venv/x",
    ] {
        write(path, 10);
    }
    write("data.bin", 10_000_001);
    let patterns = ["**/node_modules", "kept", "!kept/.venv"].map(str::to_owned);
    let survey = survey::survey(directory.path(), None, &patterns).unwrap();
    let mut junk: Vec<(&str, u64)> = survey
        .junk
        .iter()
        .map(|junk| (junk.pattern.as_str(), junk.files_count))
        .collect();
    junk.sort_unstable();
    assert_eq!(
        junk,
        [
            ("**/*.pyc", 1),
            ("**/.env", 1),
            ("**/.venv", 1),
            ("**/__pycache__", 1),
            (".git", 1)
        ]
    );
    assert_eq!(survey.large, [("data.bin".to_owned(), 10_000_001)]);
    assert_eq!(survey.group_writable.len() + survey.others.len(), 2);
}
