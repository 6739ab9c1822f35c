//! `larder push` and `pull`, with other tools at the other end.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use fs_err as fs;
use larder_oci::{Digest, ImageManifest, media_type};
use larder_testkit::{
    Base, EntryKind, Fault, FaultProxy, Larder, MadeImage, OciArchive, On, Project, Registry, Run,
    install, project, skip,
};

use crate::{image, layer, registry};

const UPLOADS: &str = "/blobs/uploads/";
const DOCKERFILE: &str = "FROM busybox\nRUN echo one > /one && ln -s one /link\nCOPY a /a\n";

/// A project whose base is busybox, and a registry behind a proxy.
struct Pushing {
    project: Project,
    registry: Registry,
    proxy: FaultProxy,
}

macro_rules! pushing {
    () => {{
        let project = project!(Base::Busybox);
        match Pushing::new(project) {
            Ok(pushing) => pushing,
            Err(error) => skip!("no registry: {error:#}"),
        }
    }};
}

impl Pushing {
    fn new(project: Project) -> anyhow::Result<Self> {
        let registry = Registry::start()?;
        let proxy = FaultProxy::start(registry.host())?;
        project.write(&[("Dockerfile", DOCKERFILE), ("a", "first")]);
        Ok(Self {
            project,
            registry,
            proxy,
        })
    }

    /// Returns a name at the proxy.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.proxy.host())
    }

    fn larder(&self) -> &Larder {
        self.project.larder()
    }

    fn push(&self, args: &[&str]) -> Run {
        self.larder().run([&["push"], args].concat())
    }

    /// Returns a manifest as the registry has it.
    fn manifest(&self, repository: &str, tag: &str) -> (Digest, ImageManifest) {
        manifest(&self.registry, repository, tag)
    }
}

fn manifest(registry: &Registry, repository: &str, tag: &str) -> (Digest, ImageManifest) {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let accept = [("Accept", "*/*"), ("Accept", media_type::MANIFEST)];
    let answer = registry.request("GET", &path, &accept, &[]).unwrap();
    assert_eq!(answer.status, 200, "{repository}:{tag}");
    let manifest = serde_json::from_slice(&answer.body).unwrap();
    (Digest::sha256(&answer.body), manifest)
}

fn skopeo(args: &[&str]) -> Run {
    Run::of(Command::new("skopeo").args(args)).success()
}

/// Reads the image at a registry with skopeo.
fn copied(registry: &Registry, name: &str, to: &Path) -> OciArchive {
    let from = format!("docker://{}/{name}", registry.host());
    let archive = format!("oci-archive:{}:1", to.display());
    let _ = skopeo(&["copy", "-q", "--src-tls-verify=false", &from, &archive]);
    OciArchive::open(to).unwrap()
}

#[test]
fn what_is_pushed_is_read_by_skopeo_and_umoci() {
    let pushing = pushing!();
    if let Err(error) = install(&["skopeo", "umoci"]) {
        skip!("no other tools: {error:#}");
    }
    let names = [pushing.name("team/app:1"), pushing.name("team/app:two")];
    let run = pushing.project.build(&["-t", &names[0], "-t", &names[1]]);
    let _ = run.success();
    let run = pushing.push(&["-a", &pushing.name("team/app")]).success();
    let (digest, manifest) = pushing.manifest("team/app", "1");
    assert_eq!(pushing.manifest("team/app", "two").0, digest);
    let header = format!(
        "The push refers to repository [{}]\n",
        pushing.name("team/app")
    );
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.starts_with(&header), "{text}");
    for tag in ["1", "two"] {
        let line = format!("\n{tag}: digest: {digest} size: ");
        assert!(text.contains(&line), "{text}");
    }
    let types: Vec<&str> = manifest
        .layers
        .iter()
        .map(|layer| layer.media_type.as_str())
        .collect();
    assert_eq!(types, [media_type::LAYER_GZIP; 3]);
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let id: String = blob.digest.hex().chars().take(12).collect();
        assert!(text.contains(&format!("{id}: Pushed\n")), "{text}");
        assert!(
            text.contains(&format!("{id}: Layer already exists\n")),
            "{text}"
        );
    }

    let scratch = pushing.project.scratch();
    let archive = copied(&pushing.registry, "team/app:two", &scratch.join("app.tar"));
    let layers = archive.layers().unwrap();
    let one = layers[1].iter().find(|entry| entry.path == "one").unwrap();
    assert_eq!(one.kind, EntryKind::File(b"one\n".to_vec()));

    let layout = scratch.join("layout");
    let from = format!("docker://{}/team/app:1", pushing.registry.host());
    let to = format!("oci:{}:1", layout.display());
    let _ = skopeo(&["copy", "-q", "--src-tls-verify=false", &from, &to]);
    let bundle = scratch.join("bundle");
    let unpacked = Run::of(
        Command::new("umoci")
            .args(["unpack", "--image"])
            .arg(format!("{}:1", layout.display()))
            .arg(&bundle),
    );
    let _ = unpacked.success();
    let read = |name: &str| fs::read_to_string(bundle.join("rootfs").join(name)).unwrap();
    assert_eq!(
        (read("link"), read("a")),
        ("one\n".to_owned(), "first".to_owned())
    );
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let pushing = pushing!();
    let name = pushing.name("team/app:1");
    let _ = pushing.project.build(&["-t", &name]).success();
    let _ = pushing.push(&[&name]).success();
    let (digest, first) = pushing.manifest("team/app", "1");
    let sizes = |manifest: &ImageManifest| -> u64 {
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        blobs.map(|blob| blob.size_bytes).sum()
    };
    assert_eq!(pushing.proxy.uploaded_bytes(), sizes(&first), "each once");

    pushing.proxy.forget();
    let again = pushing.push(&[&name]).success();
    assert!(!again.text().contains("Pushed"), "{}", again.text());
    assert_eq!(pushing.proxy.uploaded_bytes(), 0);
    assert_eq!(pushing.proxy.count("POST", ""), 0);
    assert_eq!(pushing.proxy.count("PUT", ""), 0, "not even the manifest");

    // Another name for the same image: its manifest only.
    pushing.proxy.forget();
    let latest = pushing.name("team/app");
    let _ = pushing.larder().run(["tag", &name, &latest]).success();
    let run = pushing.push(&["-q", &latest]).success();
    assert_eq!(run.text(), format!("{latest}:latest"));
    assert_eq!(pushing.proxy.uploaded_bytes(), 0);
    assert_eq!(pushing.manifest("team/app", "latest").0, digest);

    // A changed file: its layer and the config.
    pushing.proxy.forget();
    pushing.project.write(&[("a", "second")]);
    let _ = pushing.project.build(&["-t", &name]).success();
    let _ = pushing.push(&[&name]).success();
    let (_, second) = pushing.manifest("team/app", "1");
    assert_eq!(second.layers[..2], first.layers[..2]);
    let sent = second.layers[2].size_bytes + second.config.size_bytes;
    assert_eq!(pushing.proxy.uploaded_bytes(), sent);
}

#[test]
fn other_repositories_of_the_registry_give_their_layers() {
    let pushing = pushing!();
    let name = pushing.name("team/app:1");
    let _ = pushing.project.build(&["-t", &name]).success();
    let _ = pushing.push(&[&name]).success();
    let (digest, _) = pushing.manifest("team/app", "1");
    pushing.proxy.forget();
    let other = pushing.name("team/other:1");
    let _ = pushing.larder().run(["tag", &name, &other]).success();
    let text = pushing.push(&[&other]).success().text();
    assert_eq!(text.matches(": Mounted from team/app").count(), 4, "{text}");
    assert_eq!(pushing.proxy.uploaded_bytes(), 0);
    assert_eq!(pushing.manifest("team/other", "1").0, digest);

    // What was pulled from there, too, on another machine.
    let scratch = pushing.project.scratch();
    let elsewhere = pushing
        .larder()
        .clone()
        .with_root(scratch.join("elsewhere"));
    let _ = elsewhere.run(["pull", "-q", &name]).success();
    pushing.proxy.forget();
    let third = pushing.name("team/third:1");
    let _ = elsewhere.run(["tag", &name, &third]).success();
    let text = elsewhere.run(["push", &third]).success().text();
    assert_eq!(text.matches(": Mounted from team/app").count(), 3, "{text}");
    assert_eq!(pushing.manifest("team/third", "1").0, digest);
}

#[test]
fn an_image_is_pulled_as_it_was_pushed() {
    let setup = registry!();
    if let Err(error) = install(&["skopeo"]) {
        skip!("no skopeo: {error:#}");
    }
    let archive = match Base::Busybox.archive() {
        Ok(archive) => archive,
        Err(error) => skip!("no base image: {error:#}"),
    };
    let host = setup.registry.host();
    let from = format!("oci-archive:{}", archive.display());
    let to = format!("docker://{host}/team/busybox:1");
    let _ = skopeo(&["copy", "-q", "--dest-tls-verify=false", &from, &to]);
    let (digest, pushed) = manifest(&setup.registry, "team/busybox", "1");
    let name = format!("{host}/team/busybox:1");
    let id: String = pushed.layers[0].digest.hex().chars().take(12).collect();

    let run = setup.larder.run(["pull", &name]).success();
    let expected = format!(
        "1: Pulling from team/busybox\n{id}: Pull complete\nDigest: {digest}\n\
         Status: Downloaded newer image for {name}\n{name}\n"
    );
    assert_eq!(String::from_utf8(run.stdout).unwrap(), expected);
    let run = setup.larder.run(["pull", &name]).success();
    let expected = format!(
        "1: Pulling from team/busybox\n{id}: Already exists\nDigest: {digest}\n\
         Status: Image is up to date for {name}\n{name}\n"
    );
    assert_eq!(String::from_utf8(run.stdout).unwrap(), expected);
    let pinned = format!("{host}/team/busybox@{digest}");
    assert_eq!(
        setup.larder.run(["pull", "-q", &pinned]).success().text(),
        pinned
    );
    let shown = setup
        .larder
        .run(["run", &name, "echo", "it runs"])
        .success();
    assert_eq!(shown.text(), "it runs");

    // Pushed on, it is still the same.
    let other = format!("{host}/other/busybox:1");
    let _ = setup.larder.run(["tag", &name, &other]).success();
    let _ = setup.larder.run(["push", &other]).success();
    assert_eq!(manifest(&setup.registry, "other/busybox", "1").0, digest);
    let read = copied(
        &setup.registry,
        "other/busybox:1",
        &setup.scratch.join("read.tar"),
    );
    assert_eq!(read.manifest().unwrap(), pushed);
}

#[test]
fn an_image_with_uncompressed_layers_is_compressed_on_the_way() {
    let setup = registry!();
    let made = MadeImage::new(&[
        layer("a", &vec![b'a'; 50_000]),
        layer("b", &vec![b'b'; 50_000]),
    ]);
    let archive = setup.scratch.join("made.tar");
    made.write(&archive).unwrap();
    let host = setup.registry.host();
    let name = format!("{host}/team/made:1");
    let import = setup
        .larder
        .run([Path::new("import"), &archive, Path::new(&name)]);
    let _ = import.success();
    let _ = setup.larder.run(["push", &name]).success();
    let (digest, first) = manifest(&setup.registry, "team/made", "1");
    for layer in &first.layers {
        assert_eq!(layer.media_type, media_type::LAYER_GZIP);
        assert!(layer.size_bytes < 5000, "{layer:?}");
    }
    let _ = setup.larder.run(["push", &name]).success();
    assert_eq!(manifest(&setup.registry, "team/made", "1").0, digest);
    let elsewhere = setup
        .larder
        .clone()
        .with_root(setup.scratch.join("elsewhere"));
    let _ = elsewhere.run(["pull", "-q", &name]).success();
    let saved = setup.scratch.join("saved.tar");
    let save = ["save", "-o", saved.to_str().unwrap(), &name];
    let _ = elsewhere.run(save).success();
    let layers = OciArchive::open(&saved).unwrap().layers().unwrap();
    assert_eq!(layers[1][0].kind, EntryKind::File(vec![b'b'; 50_000]));
}

#[test]
fn a_push_goes_on_after_faults() {
    let pushing = pushing!();
    let name = pushing.name("team/app:1");
    let _ = pushing.project.build(&["-t", &name]).success();
    let busy = Fault::Answer {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "0".to_owned())],
        body: Vec::new(),
    };
    pushing
        .proxy
        .inject(On::new("PUT", UPLOADS), Fault::CutRequest(100));
    pushing
        .proxy
        .inject(On::new("POST", UPLOADS).times(2), busy);
    pushing
        .proxy
        .inject(On::new("PUT", UPLOADS).after(1), Fault::LoseAnswer);
    pushing
        .proxy
        .inject(On::new("HEAD", ""), Fault::answer(503));
    pushing
        .proxy
        .inject(On::new("PUT", "/manifests/"), Fault::answer(500));
    let _ = pushing.push(&[&name]).success();
    let archive = pushing.project.scratch().join("app.tar");
    if install(&["skopeo"]).is_ok() {
        let read = copied(&pushing.registry, "team/app:1", &archive);
        assert_eq!(read.layers().unwrap().len(), 3);
    }

    // And a pull of it.
    let blobs = "/blobs/sha256";
    pushing.proxy.forget();
    pushing
        .proxy
        .inject(On::new("GET", blobs), Fault::CutAnswer(1000));
    pushing
        .proxy
        .inject(On::new("GET", blobs).after(1), Fault::answer(502));
    let elsewhere = pushing.project.scratch().join("elsewhere");
    let elsewhere = pushing.larder().clone().with_root(elsewhere);
    let _ = elsewhere.run(["pull", "-q", &name]).success();
    assert_eq!(
        elsewhere.run(["run", &name, "cat", "/a"]).success().text(),
        "first"
    );
    // One bit is enough to be refused.
    let third = pushing.project.scratch().join("third");
    let third = pushing.larder().clone().with_root(third);
    pushing.proxy.forget();
    pushing
        .proxy
        .inject(On::new("GET", blobs).after(1).times(9), Fault::FlipBit);
    let _ = third
        .run(["pull", "-q", &name])
        .exit(1)
        .says("sent other bytes as blob `sha256:");
}

#[test]
fn a_registry_that_lies_or_refuses_fails_the_push() {
    let pushing = pushing!();
    let name = pushing.name("team/app:1");
    let _ = pushing.project.build(&["-t", &name]).success();
    let other = Digest::sha256("other").to_string();
    let lie = Fault::SetHeader("docker-content-digest", other.clone());
    pushing.proxy.inject(On::new("PUT", "/manifests/"), lie);
    let _ = pushing
        .push(&[&name])
        .exit(1)
        .says(&format!("says `{other}` is"));
    pushing.proxy.forget();
    let _ = pushing.push(&[&name]).success();
    for (status, text) in [
        (413, "is larger than"),
        (403, "push access denied"),
        (405, "refused"),
    ] {
        pushing.project.write(&[("a", &format!("for {status}"))]);
        let _ = pushing.project.build(&["-t", &name]).success();
        pushing.proxy.forget();
        let refusal = Fault::answer(status);
        pushing
            .proxy
            .inject(On::new("PUT", UPLOADS).times(9), refusal);
        let run = pushing.push(&[&name]).exit(1).says(text);
        assert!(!run.stderr.contains("larder import"), "{}", run.stderr);
    }
    let nothing = pushing.name("team/nothing");
    let _ = pushing.push(&[&nothing]).exit(1).says(&format!(
        "no image of the local store is named `{nothing}:latest`"
    ));
    let _ = pushing.push(&["-a", &name]).exit(1).says("`--all-tags`");
}

#[test]
fn a_push_can_be_canceled() {
    let pushing = pushing!();
    let name = pushing.name("team/app:1");
    let _ = pushing.project.build(&["-t", &name]).success();
    let long = Fault::Delay(Duration::from_secs(50));
    pushing
        .proxy
        .inject(On::new("POST", UPLOADS).times(9), long);
    let mut command = pushing.larder().command(["push", &name]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while pushing.proxy.count("POST", UPLOADS) == 0 {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it ended before the upload"
        );
        thread::yield_now();
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
}

#[test]
fn a_build_pushes_under_all_its_names() {
    let pushing = pushing!();
    let names = [pushing.name("team/app:1"), pushing.name("other/app:2")];
    let run = pushing.project.build(&[
        "--push",
        "--provenance=false",
        "-t",
        &names[0],
        "-t",
        &names[1],
    ]);
    let run = run.success();
    let (digest, manifest) = pushing.manifest("team/app", "1");
    assert_eq!(pushing.manifest("other/app", "2").0, digest);
    let step = run.step("exporting to image");
    for line in [
        "pushing layers".to_owned(),
        format!("pushing {}", manifest.layers[1].digest),
        format!("pushing manifest for {}@{digest}", names[0]),
        format!("pushing manifest for {}@{digest}", names[1]),
    ] {
        let told = step.lines.iter().any(|own| own.starts_with(&line));
        assert!(told, "{line}: {:?}", step.lines);
    }
    let blobs = manifest.layers.iter().chain([&manifest.config]);
    let total: u64 = blobs.map(|blob| blob.size_bytes).sum();
    assert_eq!(
        pushing.proxy.uploaded_bytes(),
        total,
        "the second takes the first's"
    );
    // Once more, with nothing new: no byte is sent.
    pushing.proxy.forget();
    let run = pushing.project.build(&[
        "--push",
        "--provenance=false",
        "-t",
        &names[0],
        "-t",
        &names[1],
    ]);
    let _ = run.success();
    assert_eq!(pushing.proxy.uploaded_bytes(), 0);
    assert_eq!(pushing.proxy.count("PUT", ""), 0);
}

#[test]
fn an_image_without_a_tag_is_found_by_its_digest() {
    let pushing = pushing!();
    let name = pushing.name("team/app");
    let output = format!("type=image,name={name},push=true,push-by-digest=true");
    let metadata = pushing.project.scratch().join("metadata.json");
    let metadata_flag = format!("--metadata-file={}", metadata.display());
    let _ = pushing
        .project
        .build(&["-o", &output, &metadata_flag, "--provenance=false"])
        .success();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let digest = json["containerimage.digest"].as_str().unwrap();
    assert_eq!(pushing.manifest("team/app", digest).0.as_str(), digest);
    let tags = pushing
        .registry
        .request("GET", "/v2/team/app/tags/list", &[], &[]);
    let tags: serde_json::Value = serde_json::from_slice(&tags.unwrap().body).unwrap();
    assert_eq!(tags["tags"], serde_json::Value::Null);
    let elsewhere = pushing.project.scratch().join("elsewhere");
    let elsewhere = pushing.larder().clone().with_root(elsewhere);
    let pinned = format!("{name}@{digest}");
    assert_eq!(
        elsewhere.run(["pull", "-q", &pinned]).success().text(),
        pinned
    );
    assert_eq!(
        elsewhere
            .run(["run", &pinned, "cat", "/a"])
            .success()
            .text(),
        "first"
    );
    let _ = pushing
        .push(&[&pinned])
        .exit(1)
        .says("is pushed by its tag, not by a digest");
}

/// The base's layers are in a registry only, and another one gets them.
#[test]
fn layers_that_only_another_registry_has_are_passed_on() {
    let setup = registry!();
    let target = match Registry::start() {
        Ok(registry) => registry,
        Err(error) => skip!("no registry: {error:#}"),
    };
    let host = setup.registry.host();
    let base = image("base", &[b'b'; 10_000]);
    base.push(&setup.registry, "team/base", "1").unwrap();
    let dockerfile = format!("FROM {host}/team/base:1\nCOPY Dockerfile /\n");
    let cache = format!("type=registry,ref={host}/team/cache");
    let export = format!("{cache},mode=max");
    let _ = setup.build(&dockerfile, &["--cache-to", &export]).success();

    let elsewhere = setup
        .larder
        .clone()
        .with_root(setup.scratch.join("elsewhere"));
    let context = setup.scratch.join("context");
    let name = format!("{}/team/app:1", target.host());
    let mut command = elsewhere.command(["build", "--push", "-t", &name, "--cache-from", &cache]);
    let _ = command.arg("--provenance=false");
    let run = Run::of(command.arg(&context)).success();
    let cached = |line: &&str| line.ends_with("CACHED");
    assert!(
        run.stderr.lines().any(|line| cached(&line)),
        "{}",
        run.stderr
    );
    let (_, pushed) = manifest(&target, "team/app", "1");
    assert_eq!(pushed.layers.len(), 2);
    let path = format!("/v2/team/app/blobs/{}", pushed.layers[0].digest);
    let blob = target.request("GET", &path, &[], &[]).unwrap();
    assert_eq!(Digest::sha256(&blob.body), pushed.layers[0].digest);
}
