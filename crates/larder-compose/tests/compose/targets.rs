//! From services to what is built.

use larder_compose::{BuildTarget, Dockerfile, TargetContext};

use crate::support::{Directory, pairs};

fn targets(file: &str, services: &[&str]) -> Result<Vec<BuildTarget>, String> {
    let directory = Directory::new(&[("compose.yaml", file)]);
    let mut options = directory.with(&[("FROM_SHELL", "shell")]);
    options.project_name = Some("shop".to_owned());
    let project = options.load().map_err(|error| error.to_string())?;
    project
        .build_targets(services)
        .map_err(|error| error.to_string())
}

#[test]
fn a_service_becomes_a_target() {
    let file = r"
services:
  my.api:
    build:
      context: src
      dockerfile: docker/Dockerfile
      target: prod
      args: [A=1, FROM_SHELL, UNSET_ONE]
      labels: {a: b}
      tags: [other:1]
      cache_from: [reg/app:latest]
      cache_to: ['type=inline']
      secrets: [tok, {source: file, target: renamed}]
      platforms: [linux/amd64]
      extra_hosts: ['h:1.2.3.4']
      ulimits: {nofile: 5}
      shm_size: 2gb
      no_cache: '${NO:-true}'
      pull: true
      network: host
  only-image: {image: x}
secrets: {tok: {environment: TOK}, file: {file: ./f}}
";
    let all = targets(file, &[]).unwrap();
    let [target] = &all[..] else {
        panic!("{all:?}")
    };
    assert_eq!(
        (target.name.as_str(), target.image.as_str()),
        ("my_api", "shop-my.api")
    );
    assert_eq!(target.tags, ["other:1", "shop-my.api"]);
    assert_eq!(target.args, pairs(&[("A", "1"), ("FROM_SHELL", "shell")]));
    assert_eq!(
        target.dockerfile,
        Dockerfile::Path("docker/Dockerfile".into())
    );
    let labels: Vec<&str> = target.labels.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        labels,
        [
            "a",
            "com.docker.compose.project",
            "com.docker.compose.service",
            "com.docker.compose.version"
        ]
    );
    let ids: Vec<&str> = target
        .secrets
        .iter()
        .map(|secret| secret.id.as_str())
        .collect();
    assert_eq!(ids, ["tok", "renamed"]);
    assert_eq!(target.shm_size_bytes, Some(2 << 30));
    assert!(target.no_cache && target.pull);
    assert_eq!(target.extra_hosts, pairs(&[("h", "1.2.3.4")]));
    assert_eq!(targets(file, &["only-image"]).unwrap(), []);
}

#[test]
fn contexts_of_services_come_first() {
    let file = r"
services:
  app:
    build:
      additional_contexts: [base=service:base.image, files=./files, alpine=docker-image://alpine]
  base.image: {build: {dockerfile_inline: FROM scratch}, profiles: [never]}
  unrelated: {build: .}
";
    let all = targets(file, &["app"]).unwrap();
    let names: Vec<_> = all
        .iter()
        .map(|target| (target.name.as_str(), target.is_wanted))
        .collect();
    assert_eq!(names, [("base_image", false), ("app", true)]);
    let contexts = &all[1].contexts;
    assert_eq!(
        contexts[0].1,
        TargetContext::Target("base_image".to_owned())
    );
    assert!(matches!(&contexts[1].1, TargetContext::Directory(path) if path.ends_with("files")));
    assert_eq!(contexts[2].1, TargetContext::Image("alpine".to_owned()));
}

#[test]
fn names_that_collide_are_told_apart() {
    let all = targets("services: {a.b: {build: .}, a_b: {build: .}}", &[]).unwrap();
    let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["a_b", "a_b_"]);
}

#[test]
fn what_can_t_be_built_is_named() {
    for (file, expect) in [
        (
            "services: {a: {build: {additional_contexts: {x: 'service:b'}}}, b: {image: x}}",
            "services.a.build.additional_contexts: service `b` has no `build`",
        ),
        (
            "services: {a: {build: {additional_contexts: {x: 'service:b'}}}, b: {build: {additional_contexts: {x: 'service:a'}}}}",
            "dependency cycle detected: a -> b -> a",
        ),
        (
            "services: {a: {build: {additional_contexts: {x: 'service:c'}}}}",
            "additional context `x` is of undefined service `c`",
        ),
        (
            "services: {a: {build: {secrets: [s]}}}\nsecrets: {s: {external: true}}",
            "services.a.build.secrets: `s` is external",
        ),
    ] {
        let error = targets(file, &["a"]).unwrap_err();
        assert!(error.contains(expect), "{error}");
    }
    assert_eq!(
        targets("services: {}", &["a"]).unwrap_err(),
        "no such service: a"
    );
}
