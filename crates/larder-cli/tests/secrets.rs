//! Secrets: there for the step, nowhere else.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use larder_oci::Digest;
use larder_testkit::{Base, EntryKind, OciArchive, Project, project};

/// The secret, in two parts, so that it stands in no file but those it is looked for in.
fn secret() -> String {
    ["open-", "sesame-", "4711"].concat()
}

/// Returns the files below `dir` that hold `needle`.
fn holders(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).expect("the folder is there") {
            let entry = entry.expect("the folder can be read");
            let kind = entry.file_type().expect("the kind is known");
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                let mut bytes = Vec::new();
                let mut file = fs::File::open(entry.path()).expect("root may read");
                file.read_to_end(&mut bytes).expect("root may read");
                if bytes.windows(needle.len()).any(|part| part == needle) {
                    found.push(entry.path());
                }
            }
        }
    }
    found
}

/// Writes a Dockerfile with one step after FROM.
fn step(project: &Project, step: &str) {
    project.write(&[("Dockerfile", &format!("FROM busybox\n{step}\n"))]);
}

#[test]
fn a_secret_leaves_no_trace() {
    let project = project!(Base::Busybox);
    let file = project.scratch().join("token");
    fs::write(&file, secret()).unwrap();
    project.write(&[(
        "Dockerfile",
        "FROM busybox\n\
         RUN --mount=type=secret,id=file sha256sum < /run/secrets/file\n\
         RUN --mount=type=secret,id=variable,env=TOKEN printf %s \"$TOKEN\" | sha256sum\n\
         RUN --mount=type=secret,id=file,target=/work/token,uid=5,gid=6,mode=0440 stat -c '%a %u %g %s' /work/token\n\
         RUN --mount=type=secret,id=file,target=/etc/token,env=AS_WELL test \"$AS_WELL\" = \"$(cat /etc/token)\" && echo both\n\
         RUN ls -A /run /work /etc/token 2>&1; echo \"[$TOKEN]\"\n",
    )]);
    let archive = project.scratch().join("out.oci.tar");
    let args = [
        &format!("--secret=id=file,src={}", file.display()),
        "--secret=id=variable,env=VARIABLE",
        "--tag=app",
        &format!("--output=type=oci,dest={}", archive.display()),
        "--output=type=image",
    ];
    let mut command = project.command(&args);
    let run = larder_testkit::Run::of(command.env("VARIABLE", secret())).success();
    let sum = format!("{}  -", Digest::sha256(secret()).hex());
    let told: Vec<String> = run
        .steps()
        .iter()
        .flat_map(|step| {
            step.output()
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(told[..4], [&*sum, &*sum, "440 5 6 16", "both"]);
    assert_eq!(told.last().unwrap(), "[]");

    let larder = project.larder();
    let secret = secret();
    for args in [
        &["explain", "--format", "json"][..],
        &["du", "--verbose"],
        &["history", "--no-trunc", "app"],
        &["inspect", "app"],
    ] {
        let said = larder.run(args).success();
        assert!(!said.text().contains(&secret), "{args:?}: {}", said.text());
    }
    assert!(!run.stderr.contains(&secret), "{}", run.stderr);
    let found = holders(larder.root(), secret.as_bytes());
    assert!(found.is_empty(), "{found:?}");
    let archive = OciArchive::open(&archive).unwrap();
    for entry in archive.layers().unwrap().iter().flatten() {
        assert!(!entry.path.contains("token"), "{}", entry.path);
        if let EntryKind::File(content) = &entry.kind {
            let holds = content
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!holds, "{}", entry.path);
        }
    }

    // What a secret says is in no key.
    fs::write(&file, "another").unwrap();
    let mut command = project.command(&args);
    let run = larder_testkit::Run::of(command.env("VARIABLE", "another")).success();
    assert_eq!(run.ran(), [""; 0], "{}", run.stderr);
}

#[test]
fn a_failing_step_does_not_tell_its_secret() {
    let project = project!(Base::Busybox);
    let file = project.scratch().join("token");
    fs::write(&file, secret()).unwrap();
    step(
        &project,
        "RUN --mount=type=secret,id=token,env=TOKEN test -n \"$TOKEN\" && exit 5",
    );
    let run = project.build(&[&format!("--secret=id=token,src={}", file.display())]);
    let run = run.exit(1).says("exit code: 5");
    assert!(!run.stderr.contains(&secret()), "{}", run.stderr);
    let found = holders(project.larder().root(), secret().as_bytes());
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_secret_that_is_not_there_is_an_error_only_if_required() {
    let project = project!(Base::Busybox);
    step(
        &project,
        "RUN --mount=type=secret,id=no --mount=type=secret,id=no,env=NO [ ! -e /run/secrets ] && echo \"[$NO]\"",
    );
    let run = project.build(&[]).success();
    assert_eq!(run.step("RUN").output().last(), Some(&"[]"));
    for options in ["required", "required=true,env=NO"] {
        step(
            &project,
            &format!("RUN --mount=type=secret,id=no,{options} true"),
        );
        let run = project.build(&[]).exit(1).says("secret no: not found");
        assert!(run.stderr.contains("Dockerfile:2"), "{}", run.stderr);
    }
    let missing = project.scratch().join("missing");
    let argument = format!("--secret=id=no,src={}", missing.display());
    let _ = project
        .build(&[&argument])
        .exit(1)
        .says("secret `no`: cannot read");
}
