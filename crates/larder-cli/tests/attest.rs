//! Attestations by the real binary: in registries, archives, directories and metadata files.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::path::Path;
use std::process::Command;

use fs_err as fs;
use larder_oci::{Digest, media_type};
use larder_testkit::{
    Base, GitRepository, OciArchive, Project, Registry, Run, install, project, skip,
};
use serde_json::{Value, json};

const DOCKERFILE: &str = "FROM busybox\nARG MODE\nRUN echo made > /made\nCOPY a /a\n";
const V1: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";
/// Names what it sees in a statement, as BuildKit's protocol for generators has it.
const SCAN: &str = r#"set -e
seen=$(ls "$BUILDKIT_SCAN_SOURCE" | tr '\n' ' ')
extras=$(test -z "$BUILDKIT_SCAN_SOURCE_EXTRAS" || ls "$BUILDKIT_SCAN_SOURCE_EXTRAS" | tr '\n' ' ')
cat > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json" <<END
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
 "predicate": {"name": "list", "seen": "$seen", "extras": "$extras", "depth": "$BUILDKIT_SCAN_DEPTH"}}
END
"#;

/// A project with a registry.
struct Setup {
    project: Project,
    registry: Registry,
}

macro_rules! setup {
    () => {{
        let project = project!(Base::Busybox);
        project.write(&[("Dockerfile", DOCKERFILE), ("a", "first")]);
        match Registry::start() {
            Ok(registry) => Setup { project, registry },
            Err(error) => skip!("no registry: {error:#}"),
        }
    }};
}

impl Setup {
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    /// Builds and pushes `repository:1` with further flags; returns its digest and document.
    fn pushed(&self, repository: &str, flags: &[&str]) -> (Digest, Value) {
        let name = self.name(&format!("{repository}:1"));
        let _ = self
            .project
            .build(&[&["--push", "-t", &name], flags].concat())
            .success();
        self.document(repository, "1")
    }

    fn document(&self, repository: &str, reference: &str) -> (Digest, Value) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let accept = [
            ("Accept", media_type::MANIFEST),
            ("Accept", media_type::INDEX),
        ];
        let answer = self.registry.request("GET", &path, &accept, &[]).unwrap();
        assert_eq!(answer.status, 200, "{repository}:{reference}");
        let document = serde_json::from_slice(&answer.body).unwrap();
        (Digest::sha256(&answer.body), document)
    }

    fn blob(&self, repository: &str, digest: &Value) -> Value {
        let path = format!("/v2/{repository}/blobs/{}", digest.as_str().unwrap());
        let answer = self.registry.request("GET", &path, &[], &[]).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Returns the statements that an index in the registry has about its first image.
    fn statements(&self, repository: &str, index: &Value) -> Vec<Value> {
        let manifest = index["manifests"][1]["digest"].as_str().unwrap();
        let (_, manifest) = self.document(repository, manifest);
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| {
                let statement = self.blob(repository, &layer["digest"]);
                let annotation = &layer["annotations"]["in-toto.io/predicate-type"];
                assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
                assert_eq!(annotation, &statement["predicateType"]);
                statement
            })
            .collect()
    }
}

fn kinds(statements: &[Value]) -> Vec<&str> {
    let kinds = statements.iter().map(|s| s["predicateType"].as_str());
    kinds.map(Option::unwrap).collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_is_pushed_has_a_short_provenance_unless_that_is_declined() {
    let setup = setup!();
    let (first, index) = setup.pushed("app", &["--build-arg", "MODE=fast"]);
    assert_eq!(index["mediaType"], media_type::INDEX);
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2);
    let image = manifests[0]["digest"].as_str().unwrap();
    let about = &manifests[1];
    assert_eq!(
        about["platform"],
        json!({"architecture": "unknown", "os": "unknown"})
    );
    assert_eq!(
        about["annotations"],
        json!({
            "vnd.docker.reference.digest": image,
            "vnd.docker.reference.type": "attestation-manifest",
        })
    );
    let (_, artifact) = setup.document("app", about["digest"].as_str().unwrap());
    assert_eq!(
        artifact["artifactType"],
        "application/vnd.docker.attestation.manifest.v1+json"
    );
    assert_eq!(artifact["subject"]["digest"], image);

    let statements = setup.statements("app", &index);
    assert_eq!(kinds(&statements), [V1]);
    let statement = &statements[0];
    let host = larder_oci::Platform::host().to_string().replace('/', "%2F");
    assert_eq!(
        statement["subject"],
        json!([{
            "name": format!("pkg:docker/{}@1?platform={host}", setup.name("app")),
            "digest": {"sha256": image.strip_prefix("sha256:").unwrap()},
        }])
    );
    let definition = &statement["predicate"]["buildDefinition"];
    let dependency = &definition["resolvedDependencies"][0]["uri"];
    assert_eq!(
        dependency,
        &format!("pkg:docker/busybox@latest?platform={host}")
    );
    assert!(!statement.to_string().contains("MODE"), "{statement}");

    // What is unchanged keeps its digest, whenever it is built.
    assert_eq!(setup.pushed("app", &["--build-arg", "MODE=fast"]).0, first);
    setup.project.write(&[("a", "second")]);
    assert_ne!(setup.pushed("app", &[]).0, first);

    let (_, plain) = setup.pushed("plain", &["--provenance=false"]);
    assert_eq!(plain["mediaType"], media_type::MANIFEST);
    let name = setup.name("plain:2");
    let mut command = setup.project.command(&["--push", "-t", &name]);
    let declined = command.env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
    let _ = Run::of(declined).success();
    assert_eq!(setup.document("plain", "2").1, plain);
}

#[test]
fn the_repository_of_the_context_is_told() {
    install(&["git"]).unwrap();
    let setup = setup!();
    let repository = GitRepository::create(&setup.project.context());
    let commit = repository.commit(&[("app/Dockerfile", DOCKERFILE), ("app/a", "first")]);
    let address = "https://user:secret@git.example/app";
    let _ = repository.git(["remote", "add", "origin", address]);
    let name = setup.name("app:1");
    let context = setup.project.context().join("app");
    let context = context.to_str().unwrap();
    let build = |variables: &[(&str, &str)]| {
        let mut command = setup
            .project
            .larder()
            .command(["build", "--push", "-t", &name]);
        let _ = Run::of(command.arg(context).envs(variables.iter().copied())).success();
        let (_, index) = setup.document("app", "1");
        let statement = setup.statements("app", &index).remove(0);
        let image = index["manifests"][0]["digest"].as_str().unwrap();
        let (_, manifest) = setup.document("app", image);
        let config = setup.blob("app", &manifest["config"]["digest"]);
        let told = &statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"]["vcs"];
        (told.clone(), config["config"]["Labels"].clone())
    };
    let told = |revision: &str| {
        json!({
            "localdir:context": "app",
            "localdir:dockerfile": "app",
            "revision": revision,
            "source": "https://git.example/app",
        })
    };
    assert_eq!(build(&[]), (told(&commit), Value::Null));
    repository.git(["rm", "--quiet", "--cached", "app/a"]);
    let flags = [
        ("BUILDX_GIT_CHECK_DIRTY", "1"),
        ("BUILDX_GIT_LABELS", "full"),
    ];
    let labels = json!({
        "com.docker.image.source.entrypoint": "app/Dockerfile",
        "org.opencontainers.image.revision": format!("{commit}-dirty"),
        "org.opencontainers.image.source": "https://git.example/app",
    });
    assert_eq!(build(&flags), (told(&format!("{commit}-dirty")), labels));
    assert_eq!(
        build(&[("BUILDX_GIT_INFO", "0")]),
        (Value::Null, Value::Null)
    );
}

#[test]
fn local_builds_are_what_they_were() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", DOCKERFILE), ("a", "first")]);
    let digest = |flags: &[&str]| {
        let file = project.scratch().join("metadata.json");
        let metadata = format!("--metadata-file={}", file.display());
        let _ = project.build(&[&[&metadata[..]], flags].concat()).success();
        read(&file)["containerimage.descriptor"].clone()
    };
    let default = digest(&[]);
    assert_eq!(default["mediaType"], media_type::MANIFEST);
    for flags in [
        &["--provenance=false"][..],
        &["--attest=type=provenance,mode=min,inline-only=true"],
        &["-o", "type=image,name=x"],
    ] {
        assert_eq!(digest(flags), default, "{flags:?}");
    }
    let archive = project.scratch().join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let _ = project.build(&["-o", &output]).success();
    let archive = OciArchive::open(&archive).unwrap();
    assert_eq!(archive.index().unwrap().manifests.len(), 1);
    let descriptor = archive.manifest_descriptor().unwrap();
    assert_eq!(descriptor.media_type, media_type::MANIFEST);
}

#[test]
fn archives_and_the_store_hold_what_is_asked_for() {
    let setup = setup!();
    let path = setup.project.scratch().join("image.tar");
    let archived = |attributes: &str, flags: &[&str]| {
        let output = format!("type=oci,dest={},name=app:1{attributes}", path.display());
        let _ = setup
            .project
            .build(&[&["-o", &output], flags].concat())
            .success();
        OciArchive::open(&path).unwrap()
    };
    let long = ["--provenance=mode=max", "--build-arg=MODE=fast"];
    let archive = archived(",oci-artifact=false", &long);
    let top = &archive.index().unwrap().manifests[0];
    let index: Value = serde_json::from_slice(archive.blob(&top.digest).unwrap()).unwrap();
    let blob = |digest: &Value| -> Value {
        let digest: Digest = digest.as_str().unwrap().parse().unwrap();
        serde_json::from_slice(archive.blob(&digest).unwrap()).unwrap()
    };
    let manifest = blob(&index["manifests"][1]["digest"]);
    assert!(manifest.get("artifactType").is_none());
    assert_eq!(blob(&manifest["config"]["digest"])["os"], "unknown");
    let statement = blob(&manifest["layers"][0]["digest"]);
    let definition = &statement["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:MODE"], "fast");
    let steps = &definition["internalParameters"]["buildConfig"]["llbDefinition"];
    assert!(steps.to_string().contains("echo made"), "{steps}");

    // Inline ones are for registries, unless an archive asks for them.
    let inline = ["--provenance=mode=min,inline-only=true"];
    let top = |archive: &OciArchive| archive.index().unwrap().manifests[0].media_type.clone();
    assert_eq!(top(&archived("", &inline)), media_type::MANIFEST);
    let forced = archived(",attestation-inline=true", &inline);
    assert_eq!(top(&forced), media_type::INDEX);

    // An image in the store is run, and pushed as it is.
    let name = setup.name("stored:1");
    let _ = setup
        .project
        .build(&["-t", &name, "--provenance=true"])
        .success();
    let run = setup
        .project
        .larder()
        .run(["run", "--rm", &name, "cat", "/made"]);
    assert_eq!(run.success().text(), "made");
    let _ = setup.project.larder().run(["push", &name]).success();
    let (_, index) = setup.document("stored", "1");
    assert_eq!(kinds(&setup.statements("stored", &index)), [V1]);
    let image = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(setup.document("stored", image).0.as_str(), image);
}

#[test]
fn trees_have_statements_beside_them() {
    let project = project!(Base::Busybox);
    let dockerfile =
        "FROM busybox AS made\nRUN echo made > /made\nFROM scratch\nCOPY --from=made /made /\n";
    project.write(&[("Dockerfile", dockerfile)]);
    let out = project.scratch().join("out");
    let output = |attributes: &str| format!("type=local,dest={}{attributes}", out.display());
    let _ = project.build(&["-o", &output("")]).success();
    assert!(!out.join("provenance.json").exists());
    let _ = project
        .build(&["-o", &output(""), "--provenance=true"])
        .success();
    let statement = read(&out.join("provenance.json"));
    assert_eq!(statement["predicateType"], V1);
    assert_eq!(
        statement["subject"],
        json!([{"name": "made", "digest": {"sha256": Digest::sha256("made\n").hex()}}])
    );
    let prefixed = output(",attestation-prefix=app-");
    let flags = [
        "-o",
        &prefixed,
        "--provenance=filename=how.json,version=v0.2",
    ];
    let _ = project.build(&flags).success();
    let statement = read(&out.join("app-how.json"));
    assert_eq!(
        statement["predicateType"],
        "https://slsa.dev/provenance/v0.2"
    );

    let tar = project.scratch().join("out.tar");
    let flag = format!("type=tar,dest={}", tar.display());
    let _ = project.build(&["-o", &flag, "--provenance=true"]).success();
    let mut archive = tar::Archive::new(fs::File::open(&tar).unwrap());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["made", "provenance.json"]);
}

#[test]
fn a_generator_lists_the_contents() {
    let setup = setup!();
    let scanner = setup.name("scan:1");
    setup.project.write(&[
        (
            "scan/Dockerfile",
            "FROM busybox\nCOPY scan.sh /\nENTRYPOINT [\"sh\", \"/scan.sh\"]\n",
        ),
        ("scan/scan.sh", SCAN),
        (
            "Dockerfile",
            "FROM busybox AS tools\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN echo t > /tool\n\
             FROM scratch\nCOPY --from=tools /tool /\nCOPY a /a\n",
        ),
    ]);
    let context = setup.project.context().join("scan");
    let larder = setup.project.larder();
    let mut command = larder.command(["build", "--push", "--provenance=false", "-t", &scanner]);
    let _ = Run::of(command.arg(context)).success();

    let sbom = format!("--sbom=generator={scanner},DEPTH=2");
    let (first, index) = setup.pushed("app", &[&sbom]);
    let statements = setup.statements("app", &index);
    assert_eq!(kinds(&statements), [SPDX, V1]);
    assert_eq!(
        statements[0]["predicate"],
        json!({"name": "list", "seen": "a tool ", "extras": "sbom-tools ", "depth": "2"})
    );
    let image = index["manifests"][0]["digest"].as_str().unwrap();
    for statement in &statements {
        let digest = &statement["subject"][0]["digest"]["sha256"];
        assert_eq!(format!("sha256:{}", digest.as_str().unwrap()), image);
    }
    let provenance = statements[1].to_string();
    assert!(provenance.contains("/scan@1?platform="), "{provenance}");
    let again = setup
        .project
        .build(&["--push", "-t", &setup.name("app:1"), &sbom]);
    let again = again.success().says("generating sbom using");
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    assert_eq!(setup.document("app", "1").0, first);

    let out = setup.project.scratch().join("out");
    let output = format!("-otype=local,dest={}", out.display());
    let _ = setup
        .project
        .build(&[&output, &sbom, "--build-arg=BUILDKIT_SBOM_SCAN_CONTEXT=1"])
        .success();
    let list = read(&out.join("sbom.spdx.json"));
    assert_eq!(list["predicate"]["extras"], "sbom-context sbom-tools ");

    let gone = format!("--sbom=generator={}", setup.name("gone:1"));
    let failed = setup.project.build(&[&output, &gone]).exit(1);
    let _ = failed
        .says("cannot resolve the sbom generator")
        .says("gone:1");
}

#[test]
fn what_a_policy_puts_in_the_place_of_an_image_is_told() {
    let setup = setup!();
    let base = setup.name("base:1");
    setup
        .project
        .write(&[("base/Dockerfile", "FROM busybox\nRUN touch /base\n")]);
    let context = setup.project.context().join("base");
    let larder = setup.project.larder();
    let mut command = larder.command(["build", "--push", "--provenance=false", "-t", &base]);
    let _ = Run::of(command.arg(context)).success();
    let (digest, _) = setup.document("base", "1");
    let file = setup.project.scratch().join("policy.json");
    let write = |rules: Value| fs::write(&file, json!({"rules": rules}).to_string()).unwrap();
    let build = |flags: &[&str]| {
        let name = setup.name("app:1");
        let flags = [&["--push", "-t", &name], flags].concat();
        let mut command = setup.project.command(&flags);
        Run::of(command.env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", &file))
    };
    let dockerfile = "FROM gone.example/base\nRUN ls /base\n";
    setup.project.write(&[("Dockerfile", dockerfile)]);
    let host = larder_oci::Platform::host().to_string().replace('/', "%2F");
    let sha256 = digest.to_string().replace(':', "%3A");
    for (updates, expected) in [
        (base.clone(), format!("pkg:docker/{base}?platform={host}")),
        (
            format!("{base}@{digest}"),
            format!("pkg:docker/{base}?digest={sha256}&platform={host}"),
        ),
    ] {
        write(json!([{
            "action": "CONVERT",
            "selector": {"identifier": "docker-image://gone.example/base:*"},
            "updates": {"identifier": format!("docker-image://{updates}")},
        }]));
        let _ = build(&[]).success().says(&format!("FROM {base}@{digest}"));
        let (_, index) = setup.document("app", "1");
        let statement = setup.statements("app", &index).remove(0);
        let definition = &statement["predicate"]["buildDefinition"];
        let expected = expected.replace(":1", "@1");
        assert_eq!(
            definition["resolvedDependencies"],
            json!([{"uri": expected, "digest": {"sha256": digest.hex()}}])
        );
    }
    // A generator is an image as others are.
    setup
        .project
        .write(&[("Dockerfile", "FROM busybox\nRUN echo made\n")]);
    write(json!([{
        "action": "DENY",
        "selector": {"identifier": "docker-image://gone.example/*"},
    }]));
    let _ = build(&["--sbom=generator=gone.example/scan:1"])
        .exit(1)
        .says("cannot resolve the sbom generator")
        .says("source \"docker-image://gone.example/scan:1\" denied by policy");
}

#[test]
fn generators_are_held_to_the_protocol() {
    let setup = setup!();
    for (index, (script, expected)) in [
        ("exit 3", "did not complete successfully: exit code: 3"),
        (
            "echo x > /run/out/sbom.spdx.json",
            "the sbom generator left `sbom.spdx.json`, which is no in-toto statement",
        ),
        (
            "echo '{\"predicateType\": \"https://slsa.dev/provenance/v1\"}' > /run/out/p.json",
            "the sbom generator left `p.json`, which is a `https://slsa.dev/provenance/v1`: expected",
        ),
        (
            "ln -s /etc/passwd /run/out/a",
            "the sbom generator left `a`, which",
        ),
        (
            "mkdir /run/out/d",
            "the sbom generator left `d`, which is no file",
        ),
        ("echo x > /run/src/core/sbom/x", "Read-only file system"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = setup.name(&format!("scan:{index}"));
        let text = format!("FROM busybox\nCMD {}\n", json!(["sh", "-ec", script]));
        setup.project.write(&[("scan/Dockerfile", &text)]);
        let larder = setup.project.larder();
        let mut command = larder.command(["build", "--push", "--provenance=false", "-t", &name]);
        let _ = Run::of(command.arg(setup.project.context().join("scan"))).success();
        let sbom = format!("--sbom=generator={name}");
        let failed = setup.project.build(&["-t", "x", &sbom]).exit(1);
        assert!(
            failed.stderr.contains(expected),
            "{script}: {}",
            failed.stderr
        );
    }
}

#[test]
fn metadata_tells_how_an_image_was_made() {
    let setup = setup!();
    let file = setup.project.scratch().join("metadata.json");
    let flag = format!("--metadata-file={}", file.display());
    let metadata = |mode: &str| {
        let mut command = setup.project.command(&[&flag, "--build-arg=MODE=fast"]);
        let _ = Run::of(command.env("BUILDX_METADATA_PROVENANCE", mode)).success();
        read(&file)["buildx.build.provenance"].clone()
    };
    let short = metadata("");
    let path = &short["buildDefinition"]["externalParameters"]["configSource"]["path"];
    assert_eq!(path, "Dockerfile");
    assert!(short["runDetails"].get("metadata").is_none(), "{short}");
    let long = metadata("max");
    let internal = &long["buildDefinition"]["internalParameters"];
    assert!(
        internal["buildConfig"]["llbDefinition"].is_array(),
        "{long}"
    );
    assert!(long["runDetails"]["metadata"]["finishedOn"].is_string());
    assert_eq!(metadata("disabled"), Value::Null);
}

#[test]
fn two_machines_attest_the_same() {
    let setup = setup!();
    let other = project!(Base::Busybox);
    other.write(&[("Dockerfile", DOCKERFILE), ("a", "first")]);
    let pushed = |project: &Project, repository: &str| {
        let name = setup.name(&format!("{repository}:1"));
        let output = format!("type=registry,name={name},rewrite-timestamp=true");
        let epoch = "--build-arg=SOURCE_DATE_EPOCH=1000000000";
        let _ = project
            .build(&["-o", &output, epoch, "--provenance=mode=max"])
            .success();
    };
    // One name: it is part of what is attested.
    pushed(&setup.project, "app");
    let first = setup.document("app", "1").0;
    pushed(&other, "app");
    assert_eq!(setup.document("app", "1").0, first);
}

#[test]
fn other_tools_read_the_index() {
    let setup = setup!();
    if let Err(error) = install(&["skopeo"]) {
        skip!("no other tool: {error:#}");
    }
    let (digest, index) = setup.pushed("app", &[]);
    let name = setup.name("app:1");
    let from = format!("docker://{name}");
    let raw =
        Run::of(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &from]));
    assert_eq!(Digest::sha256(&raw.success().stdout), digest);
    let to = format!("oci:{}:1", setup.project.scratch().join("layout").display());
    let copy = ["copy", "-q", "--all", "--src-tls-verify=false", &from, &to];
    let _ = Run::of(Command::new("skopeo").args(copy)).success();

    let larder = setup.project.larder();
    let shown = larder
        .run(["docker", "imagetools-inspect", &name])
        .success();
    let about = index["manifests"][1]["digest"].as_str().unwrap();
    for expected in [about, "unknown/unknown", "attestation-manifest"] {
        assert!(shown.text().contains(expected), "{}", shown.text());
    }

    // A machine that pulls it takes the image, not what is said of it.
    let _ = larder.run(["pull", &name]).success();
    let run = larder.run(["run", "--rm", &name, "cat", "/made"]).success();
    assert_eq!(run.text(), "made");
}

#[test]
fn targets_and_services_say_what_is_attested() {
    let setup = setup!();
    let (bake, compose) = (setup.name("bake:1"), setup.name("compose:1"));
    let file = format!(
        "target \"default\" {{\n tags = [\"{bake}\"]\n output = [\"type=registry\"]\n \
         attest = [{{ type = \"provenance\", mode = \"max\" }}]\n}}\n"
    );
    let services = format!(
        "services:\n  app:\n    image: {compose}\n    build:\n      context: .\n      provenance: false\n"
    );
    setup.project.write(&[
        ("docker-bake.hcl", &file),
        ("compose/compose.yaml", &services),
    ]);
    setup
        .project
        .write(&[("compose/Dockerfile", DOCKERFILE), ("compose/a", "x")]);
    let run = |args: &[&str], directory: &Path| {
        let mut command = setup.project.larder().command(args);
        let _ = Run::of(command.current_dir(directory)).success();
    };
    let context = setup.project.context();
    run(&["bake", "-f", "docker-bake.hcl"], &context);
    let index = setup.document("bake", "1").1;
    let statements = setup.statements("bake", &index);
    assert!(statements[0].to_string().contains("llbDefinition"));
    run(&["compose", "build", "--push"], &context.join("compose"));
    assert_eq!(
        setup.document("compose", "1").1["mediaType"],
        media_type::MANIFEST
    );
    let flags = ["compose", "build", "--push", "--provenance=mode=min"];
    run(&flags, &context.join("compose"));
    assert_eq!(
        setup.document("compose", "1").1["mediaType"],
        media_type::INDEX
    );
}
