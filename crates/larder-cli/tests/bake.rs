//! `larder bake`: files are read, and what they define is built.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::io::Write;
use std::process::Stdio;

use fs_err as fs;
use insta::assert_snapshot;
use larder_testkit::{Base, Larder, Project, Registry, Run, Scratch, project, skip, write_tree};
use serde_json::{Value, json};

/// Appends to a cache mount, which counts how often a step runs.
const COUNT: &str = "RUN --mount=type=cache,id=count,target=/count echo x >> /count/runs";

/// Runs `larder bake --progress plain ARGS…` in the context of a project.
fn bake(project: &Project, args: &[&str]) -> Run {
    bake_with(project, args, &[])
}

fn bake_with(project: &Project, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = project.larder().command(["bake", "--progress", "plain"]);
    command.args(args).current_dir(project.context());
    Run::of(command.envs(variables.iter().copied()))
}

/// Runs `larder bake` with `input` on its standard input.
fn bake_stdin(project: &Project, args: &[&str], input: &str) -> Run {
    let mut command = project.larder().command(["bake"]);
    command.args(args).current_dir(project.context());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that fails early does not read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed: std::time::Duration::ZERO,
    }
}

/// Runs `larder bake` on files, without root and base image: nothing is built.
fn read(files: &[(&str, &str)], args: &[&str]) -> Run {
    let scratch = Scratch::new();
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
    write_tree(&scratch.join("context"), files);
    let mut command = larder.command(["bake"]);
    Run::of(command.args(args).current_dir(scratch.join("context")))
}

fn images(project: &Project) -> Vec<String> {
    let run = project
        .larder()
        .run(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .success();
    let mut names: Vec<String> = run.text().lines().map(str::to_owned).collect();
    names.sort();
    names
}

const MATRIX: &str = r#"
variable "TAG" { default = "dev" }
variable "GREETING" { default = "hello" }

function "image" {
  params = [name]
  result = "example/${name}:${TAG}"
}

group "default" { targets = ["app", "tool"] }

target "_common" {
  args = { GREETING = upper(GREETING) }
  labels = { "org.example.tag" = TAG }
}

target "base" { dockerfile = "base.Dockerfile" }

target "app" {
  name = "app-${replace(version, ".", "-")}"
  matrix = { version = ["1.0", "2.0"] }
  inherits = ["_common"]
  contexts = { base = "target:base" }
  args = { VERSION = version }
  tags = [image("app-${version}")]
}

target "tool" {
  inherits = ["_common"]
  dockerfile-inline = <<EOT
FROM busybox
ARG GREETING
RUN echo "$GREETING tool" > /greeting
EOT
  platforms = ["local"]
  tags = [image("tool")]
}
"#;

fn write_matrix(project: &Project) {
    project.write(&[
        ("docker-bake.hcl", MATRIX),
        ("base.Dockerfile", &format!("FROM busybox\n{COUNT}\n")),
        (
            "Dockerfile",
            "FROM base\nARG VERSION GREETING\nRUN echo \"$GREETING $VERSION\" > /greeting\n",
        ),
    ]);
}

#[test]
fn a_matrix_with_variables_and_links_is_built() {
    let project = project!(Base::Busybox);
    write_matrix(&project);
    let run = bake_with(
        &project,
        &["--metadata-file", "metadata.json"],
        &[("TAG", "v7")],
    )
    .success();
    assert_eq!(
        images(&project)
            .iter()
            .filter(|name| name.starts_with("example/"))
            .collect::<Vec<_>>(),
        [
            "example/app-1.0:v7",
            "example/app-2.0:v7",
            "example/tool:v7"
        ]
    );
    // Both apps stand on one base.
    assert_eq!(
        run.ran()
            .iter()
            .filter(|step| step.starts_with("RUN --mount"))
            .count(),
        1
    );
    for (image, greeting) in [
        ("app-1.0", "HELLO 1.0"),
        ("app-2.0", "HELLO 2.0"),
        ("tool", "HELLO tool"),
    ] {
        let name = format!("example/{image}:v7");
        let cat = project
            .larder()
            .run(["run", "--rm", &name, "cat", "/greeting"])
            .success();
        assert_eq!(cat.text(), greeting);
    }
    let metadata = fs::read_to_string(project.context().join("metadata.json")).unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(
        metadata["app-1-0"]["image.name"],
        "docker.io/example/app-1.0:v7"
    );
    assert!(
        metadata["tool"]["containerimage.digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    let base = metadata["base"].as_object().unwrap();
    assert_eq!(
        base.keys().collect::<Vec<_>>(),
        ["buildx.build.provenance"],
        "it makes no image"
    );
    let again = bake_with(&project, &[], &[("TAG", "v7")]).success();
    assert!(
        again.ran().iter().all(|step| !step.starts_with("RUN")),
        "{}",
        again.stderr
    );
}

#[test]
fn overrides_and_variables_change_what_is_built() {
    let project = project!(Base::Busybox);
    write_matrix(&project);
    let args = [
        "tool",
        "--var",
        "GREETING=hi",
        "--set",
        "tool.tags+=extra",
        "--set",
        "*.output=type=local,dest=out",
        "--set",
        "tool.output=type=docker",
    ];
    let _ = bake(&project, &args).success();
    assert!(images(&project).contains(&"extra:latest".to_owned()));
    let greeting = fs::read_to_string(project.context().join("out/greeting")).unwrap();
    assert_eq!(greeting, "HI tool\n");
}

#[test]
fn a_stage_that_targets_share_is_built_once() {
    let project = project!(Base::Busybox);
    project.write(&[
        (
            "Dockerfile",
            &format!("FROM busybox AS shared\n{COUNT}\nFROM shared AS one\nRUN echo 1 > /n\nFROM shared AS two\nRUN echo 2 > /n\n"),
        ),
        (
            "docker-bake.json",
            r#"{"group": {"default": {"targets": ["one", "two"]}},
                "target": {"one": {"target": "one", "tags": ["one"]}, "two": {"target": "two", "tags": ["two"]}}}"#,
        ),
    ]);
    let run = bake(&project, &[]).success();
    assert_eq!(
        run.ran()
            .iter()
            .filter(|step| step.starts_with("RUN --mount"))
            .count(),
        1,
        "{}",
        run.stderr
    );
    let runs = project
        .larder()
        .run(["run", "--rm", "two", "cat", "/n"])
        .success();
    assert_eq!(runs.text(), "2");
}

#[test]
fn compose_feeds_json_to_standard_input() {
    let project = project!(Base::Busybox);
    // Compose gives absolute paths, and runs bake wherever it is run itself.
    let source = project.scratch().join("source");
    write_tree(
        &source,
        &[
            (
                "api/Dockerfile",
                "FROM busybox\nARG A\nRUN echo \"$A\" > /a\n",
            ),
            ("web/f", "x"),
        ],
    );
    let api = source.join("api");
    let web = source.join("web");
    let definition = json!({
        "group": {"default": {"targets": ["api", "web_site"]}},
        "target": {
            "api": {
                "context": api,
                "dockerfile": "Dockerfile",
                "args": {"A": "$${HOME}"},
                "labels": {"com.docker.compose.service": "api"},
                "tags": ["project-api"],
                "shm-size": "64000000",
                "output": ["type=docker"],
            },
            "web_site": {
                "context": web,
                "contexts": {"base": "target:api"},
                "dockerfile-inline": "FROM base\nCOPY f /f\n",
                "tags": ["project-web.site"],
                "output": ["type=docker"],
            },
        },
    });
    let metadata = project.scratch().join("metadata.json");
    let allow_api = format!("fs.read={}", api.display());
    let allow_web = format!("fs.read={}", web.display());
    let args = [
        "--file",
        "-",
        "--progress",
        "rawjson",
        "--metadata-file",
        metadata.to_str().unwrap(),
        "--allow",
        &allow_api,
        "--allow",
        &allow_web,
        "--provenance=false",
    ];
    let run = bake_stdin(&project, &args, &definition.to_string()).success();
    for line in run.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(line.is_object());
    }
    let metadata: Value = serde_json::from_str(&fs::read_to_string(&metadata).unwrap()).unwrap();
    for (target, name) in [("api", "project-api"), ("web_site", "project-web.site")] {
        assert_eq!(
            metadata[target]["image.name"],
            format!("docker.io/library/{name}:latest")
        );
        assert!(metadata[target]["containerimage.digest"].is_string());
    }
    let cat = project
        .larder()
        .run(["run", "--rm", "project-web.site", "cat", "/a", "/f"])
        .success();
    assert_eq!(cat.text(), "${HOME}\nx");
    // A failure is told in a line that compose shows.
    let broken = definition.to_string().replace("FROM base", "FRM base");
    let run = bake_stdin(&project, &args, &broken).exit(1);
    let error = run
        .stderr
        .lines()
        .find(|line| line.starts_with("ERROR: "))
        .unwrap();
    assert!(error.contains("target web_site: "), "{error}");
}

#[test]
fn what_lies_elsewhere_needs_consent() {
    let project = project!(Base::Busybox);
    write_tree(&project.scratch().join("other"), &[("f", "x")]);
    project.write(&[(
        "docker-bake.hcl",
        "target \"default\" {\n  context = \"../other\"\n  dockerfile-inline = \"FROM scratch\\nCOPY f /\"\n  \
         output = [\"type=local,dest=../out\"]\n}\n",
    )]);
    let other = fs::canonicalize(project.scratch().join("other")).unwrap();
    let above = fs::canonicalize(project.scratch().join("")).unwrap();
    let run = bake(&project, &[])
        .exit(1)
        .says("additional privileges requested");
    let read = format!("--allow=fs.read={}", other.display());
    let write = format!("--allow=fs.write={}", above.display());
    assert!(
        run.stderr
            .contains(&format!("Pass \"{read} {write}\" to grant")),
        "{}",
        run.stderr
    );
    assert!(!project.scratch().join("out").exists());

    let _ = bake(&project, &[&read, &write]).success();
    assert!(project.scratch().join("out/f").exists());
    let override_grants = ["--set", "default.output=type=local,dest=../out2", &read];
    let _ = bake(&project, &override_grants).success();
    let _ = bake_with(&project, &[], &[("BUILDX_BAKE_ENTITLEMENTS_FS", "0")]).success();
    let host = ["--set", "default.network=host", &read, &write];
    let _ = bake(&project, &host).exit(1).says("--allow=network.host");
    let _ = bake(
        &project,
        &[&host[..], &["--allow", "network.host"]].concat(),
    )
    .success();
}

#[test]
fn caches_are_exported_and_imported() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n"),
        (
            "docker-bake.hcl",
            "target \"default\" {\n  cache-from = [\"type=local,src=cache\"]\n  \
             cache-to = [{ type = \"local\", dest = \"cache\", mode = \"max\" }]\n  tags = [\"app\"]\n}\n",
        ),
        (".dockerignore", "cache"),
    ]);
    let _ = bake(&project, &[]).success();
    let pruned = project.larder().run(["prune", "-af"]);
    let _ = pruned.success();
    let again = bake(&project, &[]).success();
    assert!(
        again.ran().iter().all(|step| !step.starts_with("RUN")),
        "{}",
        again.stderr
    );
}

#[test]
fn images_are_pushed() {
    let project = project!(Base::Busybox);
    let registry = match Registry::start() {
        Ok(registry) => registry,
        Err(error) => skip!("{error:#}"),
    };
    let hcl = format!(
        "target \"default\" {{\n  dockerfile-inline = \"FROM busybox\\nRUN echo a > /a\"\n  tags = [\"{}/app:1\"]\n}}\n",
        registry.host()
    );
    project.write(&[("docker-bake.hcl", &hcl)]);
    let _ = bake(&project, &["--push", "--metadata-file", "m.json"]).success();
    let answer = registry
        .request(
            "GET",
            "/v2/app/manifests/1",
            &[("Accept", "application/vnd.oci.image.index.v1+json")],
            &[],
        )
        .unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn services_of_compose_files_are_targets() {
    let files = [
        (
            "compose.yaml",
            "services:\n  api:\n    image: shop/api:${TAG:-1}\n    profiles: [extra]\n    build:\n      context: api\n      \
             args: {A: b}\n      additional_contexts: {base: 'service:web.site'}\n      shm_size: 128m\n      secrets: [s]\n      x-bake:\n        \
             tags: [shop/api:x]\n        platforms: linux/amd64\n        no-cache: true\n        cache-to: type=inline\n  \
             web.site:\n    build: {dockerfile_inline: 'FROM scratch'}\n  db: {image: postgres}\nsecrets: {s: {file: ./secret}}\n",
        ),
        ("docker-bake.hcl", "target \"api\" { labels = { l = 1 } }\n"),
    ];
    let run = read(&files, &["--print"]).success();
    assert_snapshot!(run.text(), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "api",
            "web_site"
          ]
        }
      },
      "target": {
        "api": {
          "context": "api",
          "contexts": {
            "base": "target:web_site"
          },
          "dockerfile": "Dockerfile",
          "args": {
            "A": "b"
          },
          "labels": {
            "l": "1"
          },
          "tags": [
            "shop/api:1",
            "shop/api:x"
          ],
          "cache-to": [
            {
              "type": "inline"
            }
          ],
          "secret": [
            {
              "id": "s",
              "src": "secret"
            }
          ],
          "platforms": [
            "linux/amd64"
          ],
          "no-cache": true,
          "shm-size": "128MiB"
        },
        "web_site": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "dockerfile-inline": "FROM scratch"
        }
      }
    }
    "#);
}

#[test]
fn compose_files_come_from_standard_input_too() {
    let project = project!(Base::Busybox);
    let input = "services: {api: {build: {context: api, labels: {a: b}}}}\n";
    let run = bake_stdin(&project, &["-f", "-", "--print"], input).success();
    let plan: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(plan["target"]["api"]["context"], "api");
    assert_eq!(plan["target"]["api"]["labels"]["a"], "b");
}

#[test]
fn plans_and_lists_are_printed() {
    let files = [("docker-bake.hcl", MATRIX)];
    let run = read(&files, &["--print", "tool"]).success();
    assert_snapshot!(run.text(), @r#"
    {
      "group": {
        "default": {
          "targets": [
            "tool"
          ]
        }
      },
      "target": {
        "tool": {
          "context": ".",
          "dockerfile": "Dockerfile",
          "dockerfile-inline": "FROM busybox\nARG GREETING\nRUN echo \"$GREETING tool\" \u003e /greeting\n",
          "args": {
            "GREETING": "HELLO"
          },
          "labels": {
            "org.example.tag": "dev"
          },
          "tags": [
            "example/tool:dev"
          ],
          "platforms": [
            "local"
          ]
        }
      }
    }
    "#);
    let run = read(&files, &["--list=targets"]).success();
    assert_eq!(
        run.text(),
        "TARGET\tDESCRIPTION\n\
         app\tapp-1-0, app-2-0\n\
         app-1-0\t\n\
         app-2-0\t\n\
         base\t\n\
         default\tapp, tool\n\
         tool"
    );
    let run = read(&files, &["--list=type=variables,format=json"]).success();
    assert_snapshot!(run.text(), @r#"
    [
      {
        "name": "GREETING",
        "value": "hello"
      },
      {
        "name": "TAG",
        "value": "dev"
      }
    ]
    "#);
}

#[test]
fn files_are_named_by_flags_or_the_environment() {
    let target = |context: &str| format!("target \"default\" {{ context = \"{context}\" }}\n");
    let (a, b) = (target("a"), "target \"default\" { tags = [\"b\"] }\n");
    let scratch = Scratch::new();
    write_tree(
        &scratch.join("context"),
        &[("a.hcl", &a), ("b.hcl", b), ("docker-bake.hcl", "x = y")],
    );
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
    let print = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = larder.command(["bake", "--print"]);
        command.args(args).current_dir(scratch.join("context"));
        let run = Run::of(command.envs(variables.iter().copied())).success();
        let plan: Value = serde_json::from_str(&run.text()).unwrap();
        plan["target"]["default"].clone()
    };
    let both = json!({"context": "a", "dockerfile": "Dockerfile", "tags": ["b"]});
    assert_eq!(print(&["-f", "a.hcl", "--file=b.hcl"], &[]), both);
    assert_eq!(print(&[], &[("BUILDX_BAKE_FILE", "a.hcl:b.hcl")]), both);
    let separated = [
        ("BUILDX_BAKE_FILE", "a.hcl; b.hcl"),
        ("BUILDX_BAKE_PATH_SEPARATOR", ";"),
    ];
    assert_eq!(print(&[], &separated), both);
    let only = print(&["-f", "b.hcl"], &[("BUILDX_BAKE_FILE", "a.hcl")]);
    assert_eq!(only["context"], ".");
    let dated = print(&["-f", "b.hcl"], &[("SOURCE_DATE_EPOCH", "7")]);
    assert_eq!(dated["args"], json!({"SOURCE_DATE_EPOCH": "7"}));
}

#[test]
fn dockerfiles_are_checked() {
    let project = project!(Base::Busybox);
    project.write(&[
        ("Dockerfile", "from busybox\nRUN echo a\n"),
        (
            "docker-bake.hcl",
            "target \"default\" { description = \"the app\" }\n",
        ),
    ]);
    let run = bake(&project, &["--check"]).exit(1);
    let text = run.text();
    assert!(
        text.starts_with("default\nthe app\n\nCheck complete, 1 warning has been found!"),
        "{text}"
    );
    let json = bake(&project, &["--call=check,format=json"]).exit(1);
    let json: Value = serde_json::from_str(&json.text()).unwrap();
    assert!(
        json["target"]["default"]["check"]["warnings"].is_array(),
        "{json}"
    );
    assert_eq!(json["target"]["default"]["build"]["description"], "the app");
    let set = bake(&project, &["--set", "*.call=check"]).exit(1);
    assert_eq!(set.text(), text);
}

#[test]
fn questions_about_targets_are_answered() {
    let project = project!(Base::Busybox);
    project.write(&[
        (
            "Dockerfile",
            "# A is first\nARG A=1\nFROM busybox AS one\nARG A\n",
        ),
        (
            "docker-bake.hcl",
            "group \"default\" { targets = [\"b\", \"a\"] }\n\
             target \"a\" { description = \"the app\" }\n\
             target \"b\" {\n args = { A = \"2\" }\n call = \"outline\"\n}\n",
        ),
    ]);
    let outline = bake(&project, &["--call=outline"]).success();
    assert_eq!(
        String::from_utf8(outline.stdout).unwrap(),
        "a\nthe app\n\nTARGET: one\n\nBUILD ARG   VALUE   DESCRIPTION\nA           1       is first\n\n\n\
         b\n\nTARGET: one\n\nBUILD ARG   VALUE   DESCRIPTION\nA           2       \n\n"
    );
    // What a target asks for itself.
    let own = bake(&project, &["b"]).success();
    assert!(
        own.text().starts_with("b\n\nTARGET: one\n"),
        "{}",
        own.text()
    );
    let _ = bake(&project, &[])
        .exit(1)
        .says("target.b: `call`: `outline` can't be done while `a` is built");
    let json = bake(&project, &["--call=targets,format=json"]).success();
    let json: Value = serde_json::from_str(&json.text()).unwrap();
    let a = &json["target"]["a"];
    assert_eq!(a["build"]["description"], "the app");
    assert_eq!(a["targets"]["targets"][0]["name"], "one");
    assert_eq!(json["group"]["default"]["targets"], json!(["a", "b"]));
    let asked = bake(&project, &["a", "--call=subrequests.describe,format=json"]).success();
    let asked: Value = serde_json::from_str(&asked.text()).unwrap();
    let asked = &asked["target"]["a"]["subrequests.describe"]["subrequests.describe"];
    assert_eq!(asked[2]["name"], "frontend.subrequests.describe");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let run = read(
        &[(
            "docker-bake.hcl",
            "target \"default\" {\n  tags = [\"app:${TGA}\"]\n}\nvariable \"TAG\" {}\n",
        )],
        &[],
    );
    let run = run.exit(1);
    assert_snapshot!(run.stderr, @r#"
    docker-bake.hcl:2
    --------------------
       1 |     target "default" {
       2 | >>>   tags = ["app:${TGA}"]
       3 |     }
       4 |     variable "TAG" {}
    --------------------
    ERROR: docker-bake.hcl:2,18: `target.default`: there is no variable named `TGA` (did you mean TAG?)
    "#);
    for (hcl, args, expected) in [
        (
            "target \"default\" {}",
            &["nope"][..],
            "failed to find target nope",
        ),
        (
            "target \"default\" {}",
            &["--set", "default.colour=red"],
            "unknown key: colour",
        ),
        (
            "target \"default\" { attest = [\"type=nope\"] }",
            &[],
            "target.default: `attest`: `type=nope,disabled=false`: `nope` is no attestation larder can make",
        ),
        (
            "target \"default\" { ssh = [\"default\"] }",
            &[],
            "make sure SSH_AUTH_SOCK is set",
        ),
        (
            "target \"default\" { tags = [\"A:\"] }",
            &[],
            "target.default: `tags`: `A:`:",
        ),
        (
            "target \"default\" { cache-from = [\"type=s3,bucket=b\"] }",
            &[],
            "target.default: `cache-from`:",
        ),
        (
            "target \"default\" { context = \"nowhere\" }",
            &[],
            "target.default: unable to prepare context",
        ),
        (
            "target \"default\" { contexts = { a = \"docker-image://X:\" } }",
            &[],
            "target.default: `contexts`:",
        ),
        ("target \"default\" {", &[], "docker-bake.hcl:1"),
        (
            "target \"default\" {}",
            &["--print", "--list=targets"],
            "mutually exclusive",
        ),
        (
            "target \"default\" {}",
            &["-f", "nope.hcl"],
            "cannot read the bake file `nope.hcl`",
        ),
        (
            "target \"default\" {}",
            &["--allow", "everything"],
            "unknown entitlement key `everything`",
        ),
    ] {
        let _ = read(&[("docker-bake.hcl", hcl)], args)
            .exit(1)
            .says(expected);
    }
    let _ = read(&[], &[])
        .exit(1)
        .says("couldn't find a bake definition");
}
