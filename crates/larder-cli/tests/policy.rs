//! Source policies where servers, several targets or Docker's programs are needed; the rest is in
//! the conformance suite, below `policy/`.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::BTreeMap;
use std::process::Command;

use fs_err as fs;
use larder_oci::Digest;
use larder_testkit::{
    Base, GitRepository, GitServer, Project, Run, WebAnswer, WebServer, install, project,
};

const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";

/// Writes a policy beside the context; returns its path.
fn policy(project: &Project, name: &str, rules: &[String]) -> String {
    let path = project.scratch().join(name);
    fs::write(&path, format!("{{\"rules\": [{}]}}", rules.join(",\n"))).unwrap();
    path.to_str().unwrap().to_owned()
}

fn deny(identifier: &str) -> String {
    format!(r#"{{"action": "DENY", "selector": {{"identifier": "{identifier}"}}}}"#)
}

fn convert(identifier: &str, updates: &str) -> String {
    format!(
        r#"{{"action": "CONVERT", "updates": {updates}, "selector": {{"identifier": "{identifier}"}}}}"#
    )
}

fn to(identifier: &str) -> String {
    format!(r#"{{"identifier": "{identifier}"}}"#)
}

/// Runs a command by a policy.
fn by(policy: &str, command: &mut Command) -> Run {
    Run::of(command.env(VARIABLE, policy))
}

fn build(project: &Project, policy: &str, args: &[&str]) -> Run {
    by(policy, &mut project.command(args))
}

fn denied(identifier: &str) -> String {
    format!(
        "error evaluating the source policy: source \"{identifier}\" denied by policy: source \
         denied by policy"
    )
}

#[test]
fn files_of_web_servers_are_those_that_the_policy_names() {
    let project = project!(Base::Busybox);
    let pages = BTreeMap::from([("/a.txt", "as written"), ("/b.txt", "by the policy")]);
    let site = WebServer::start(move |request, _| match pages.get(&*request.target) {
        Some(text) => WebAnswer::status(200).body(text.as_bytes()),
        None => WebAnswer::status(404),
    });
    let (a, b) = (
        format!("http://{}/a.txt", site.host()),
        format!("http://{}/b.txt", site.host()),
    );
    let dockerfile = format!("FROM busybox\nADD {a} /file\nRUN cat /file\n");
    project.write(&[("Dockerfile", &dockerfile)]);
    let other = policy(&project, "other", &[convert(&a, &to(&b))]);
    // One does not find what the other has made, whichever comes first, and finds its own.
    let _ = project.build(&[]).success().says("as written");
    let _ = build(&project, &other, &[])
        .success()
        .says("by the policy")
        .says(&format!("ADD {a} /file"));
    for (run, shown) in [(project.build(&[]), &a), (build(&project, &other, &[]), &b)] {
        assert_eq!(run.success().cached_count(), 4, "{shown}");
    }

    let checksum = |text: &str| {
        let attrs = format!(
            r#"{{"attrs": {{"http.checksum": "{}"}}}}"#,
            Digest::sha256(text)
        );
        let rules = [convert("http://*/a.txt", &attrs)];
        let policy = policy(&project, "checksum", &rules);
        build(&project, &policy, &[])
    };
    // It is of the key's parts: the same file is the same step.
    assert_eq!(checksum("as written").success().cached_count(), 4);
    let _ = checksum("of something else").exit(1).says("digest");

    let nothing = policy(&project, "nothing", &[deny("http://*")]);
    let _ = site.take_requests();
    let _ = build(&project, &nothing, &[])
        .exit(1)
        .says("Dockerfile:2")
        .says(&denied(&a));
    assert_eq!(site.take_requests().len(), 0);

    // Where the context and the Dockerfile are from is held to it, too.
    let remote = project
        .larder()
        .command(["build", &a])
        .env(VARIABLE, &nothing)
        .output();
    let stderr = String::from_utf8(remote.unwrap().stderr).unwrap();
    assert!(stderr.contains(&denied(&a)), "{stderr}");
    let _ = build(&project, &nothing, &["-f", &a])
        .exit(1)
        .says(&denied(&a));
    // An image is what it is asked to be.
    let wrong = format!(
        r#"{{"attrs": {{"image.checksum": "{}"}}}}"#,
        Digest::sha256("wrong")
    );
    let wrong = policy(&project, "wrong", &[convert("docker-image://*", &wrong)]);
    let _ = build(&project, &wrong, &[]).exit(1).says("is asked for");
    // A URL in place of an image is a tree with one file.
    let image = policy(
        &project,
        "image",
        &[convert("docker-image://gone.example/x:*", &to(&b))],
    );
    let dockerfile = "FROM busybox\nCOPY --from=named / /in\nRUN cat /in/context\n";
    project.write(&[("Dockerfile", dockerfile)]);
    let context = ["--build-context", "named=docker-image://gone.example/x"];
    let _ = build(&project, &image, &context)
        .success()
        .says("by the policy");
}

#[test]
fn repositories_are_sources() {
    install(&["git"]).unwrap();
    let project = project!(Base::Busybox);
    let directory = project.scratch().join("served");
    let repository = GitRepository::create(&directory.join("app"));
    let _ = repository.commit(&[("file", "first")]);
    repository.git(["tag", "v1"]);
    let _ = repository.commit(&[("file", "second")]);
    repository.git(["tag", "v2"]);
    let server = GitServer::start(&directory);
    let url = server.url("app/.git");
    let dockerfile = format!("FROM busybox\nADD {url}#v1 /in\nRUN cat /in/file\n");
    project.write(&[("Dockerfile", &dockerfile)]);
    let _ = project.build(&[]).success().says("first");
    let identifier = url.replace("http://", "git://");
    let newer = convert(
        &format!("{identifier}#v1"),
        &to(&format!("{identifier}#v2")),
    );
    let newer = policy(&project, "newer", &[newer]);
    let _ = build(&project, &newer, &[]).success().says("second");
    let nothing = policy(&project, "nothing", &[deny("git://*")]);
    let message = denied(&format!("{identifier}#v1"));
    let _ = build(&project, &nothing, &[]).exit(1).says(&message);
}

#[test]
fn bake_compose_and_docker_s_programs_go_by_it() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", "FROM gone.example/base\nRUN cat /etc/passwd\n"),
        ("docker-bake.hcl", "group \"default\" { targets = [\"a\", \"b\"] }\ntarget \"a\" {}\ntarget \"b\" { dockerfile-inline = \"FROM busybox\\nCOPY docker-bake.hcl /\" }\n"),
        ("compose.yaml", "services:\n  a: { build: . }\n  b: { build: { context: ., dockerfile_inline: \"FROM busybox\\nCOPY compose.yaml /\" } }\n"),
    ]);
    let base = convert(
        "docker-image://gone.example/base:latest",
        &to("docker-image://docker.io/library/busybox:latest"),
    );
    let allowed = policy(&project, "allowed", std::slice::from_ref(&base));
    let local = policy(&project, "local", &[base.clone(), deny("local://context")]);
    let images = policy(&project, "images", &[base, deny("docker-image://*")]);
    let links = project.scratch().join("bin");
    let _ = project
        .larder()
        .run(["shim", "install", links.to_str().unwrap()])
        .success();
    let docker = |words: &[&str]| {
        let mut command = Command::new(links.join("docker"));
        command
            .args(words)
            .env_clear()
            .env("PATH", &links)
            .env("LARDER_ROOT", project.scratch().root())
            .env("HOME", project.scratch().home());
        command
    };
    let larder = |words: &[&str]| project.larder().command(words);
    let denied_image = "could not resolve image due to policy: source \
                        \"docker-image://docker.io/library/busybox:latest\" denied by policy";
    for (mut command, has_context) in [
        (larder(&["bake"]), true),
        (larder(&["compose", "build"]), true),
        (docker(&["build", "."]), false),
        (docker(&["buildx", "build", "."]), false),
        (docker(&["buildx", "bake"]), true),
    ] {
        command.current_dir(project.context());
        let shown = format!("{command:?}");
        let run = by(&images, &mut command);
        assert!(run.stderr.contains(denied_image), "{shown}: {}", run.stderr);
        let run = by(&local, &mut command);
        let is_denied = run.stderr.contains(&denied("local://context"));
        assert_eq!(is_denied, has_context, "{shown}: {}", run.stderr);
        let run = by(&allowed, &mut command);
        assert_eq!(run.code, Some(0), "{shown}: {}", run.stderr);
    }
}
