//! Caches that a build leaves for other machines: in directories, in registries, in images.
#![expect(clippy::unwrap_used, reason = "a test's helpers are part of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use larder_cache::{Exported, Imported, Manifest, RecordResult, inline, layout};
use larder_oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, media_type};
use larder_testkit::{Base, OciArchive, Project, Registry, Run, install, project, skip};

const STAGES: &str = "FROM busybox AS tools\n\
    COPY tool.txt /\n\
    RUN cp /tool.txt /tool && echo from-tools > /unused\n\
    FROM busybox\n\
    WORKDIR /app\n\
    COPY --from=tools /tool /bin/tool\n\
    RUN echo step > /app/step\n\
    COPY app.txt ./\n";

/// The same two stages in all tests.
fn write_stages(project: &Project) {
    project.write(&[("Dockerfile", STAGES), ("tool.txt", "t"), ("app.txt", "a")]);
}

/// A cache as it was written.
struct Cache {
    manifest: Vec<u8>,
    layers: Vec<Descriptor>,
    /// JSON.
    config: String,
    imported: Imported,
}

impl Cache {
    fn new(manifest: Vec<u8>, blob: impl Fn(&Digest) -> Vec<u8>) -> Self {
        let Manifest::Cache { config, layers } = Manifest::parse(&manifest).unwrap() else {
            panic!("{}", String::from_utf8_lossy(&manifest));
        };
        let config = blob(&config.digest);
        for layer in &layers {
            assert_eq!(blob(&layer.digest).len() as u64, layer.size_bytes);
        }
        let imported = Imported::parse(&config, &layers).unwrap();
        let exported = Exported::new(&imported.records);
        let config = String::from_utf8(config).unwrap();
        let normalized = std::str::from_utf8(exported.config_bytes()).unwrap();
        assert_eq!(normalized, config, "the config is normalized");
        Self {
            manifest,
            layers,
            config,
            imported,
        }
    }

    /// Returns the digests of its records.
    fn records(&self) -> BTreeSet<Digest> {
        let records = self.imported.records.iter();
        records.map(|record| record.digest.clone()).collect()
    }

    fn results(&self) -> Vec<&RecordResult> {
        let records = self.imported.records.iter();
        records.flat_map(|record| &record.results).collect()
    }

    /// Returns the diff IDs of the layers of all results.
    fn diff_ids(&self) -> BTreeSet<Digest> {
        let layers = self.results().into_iter().flat_map(|result| &result.layers);
        layers.map(|layer| layer.diff_id.clone()).collect()
    }
}

/// A directory that holds caches.
struct Layout(PathBuf);

impl Layout {
    fn of(project: &Project) -> Self {
        Self(project.scratch().join("caches"))
    }

    /// Returns `type=local,dest=…` and `more`.
    fn to(&self, more: &str) -> String {
        format!("type=local,dest={}{more}", self.0.display())
    }

    fn index(&self) -> ImageIndex {
        layout::parse(&fs::read(self.0.join("index.json")).unwrap()).unwrap()
    }

    fn blob(&self, digest: &Digest) -> Vec<u8> {
        let bytes = fs::read(self.0.join("blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!(Digest::sha256(&bytes), *digest);
        bytes
    }

    fn cache(&self, tag: &str) -> Cache {
        let entry = layout::find(&self.index(), tag).unwrap().clone();
        Cache::new(self.blob(&entry.digest), |digest| self.blob(digest))
    }

    /// Returns the names of the files that it has blobs in.
    fn blobs(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.0.join("blobs/sha256")).unwrap();
        let name = |file: std::io::Result<fs::DirEntry>| file.unwrap().file_name();
        files
            .map(|file| name(file).to_string_lossy().into_owned())
            .collect()
    }

    /// Returns the names that the blobs of these caches have.
    fn blobs_of(&self, tags: &[&str]) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for tag in tags {
            let cache = self.cache(tag);
            let documents = [cache.manifest.as_slice(), cache.config.as_bytes()];
            let documents = documents.map(Digest::sha256);
            let layers = cache.layers.iter().map(|layer| layer.digest.clone());
            names.extend(
                documents
                    .into_iter()
                    .chain(layers)
                    .map(|d| d.hex().to_owned()),
            );
        }
        names
    }
}

/// Reads the cache of a name in a registry.
fn fetch(registry: &Registry, repository: &str, tag: &str) -> Cache {
    let get = |path: &str, accept: &str| {
        let url = format!("http://{}/v2/{repository}/{path}", registry.host());
        let out = Run::of(
            Command::new("curl")
                .args(["-sfL", "-H", accept, "-o"])
                .args([registry.data().join("fetched").to_str().unwrap(), &url]),
        );
        let _ = out.success();
        fs::read(registry.data().join("fetched")).unwrap()
    };
    let accept = format!(
        "Accept: {}, {}, {}",
        media_type::MANIFEST,
        media_type::INDEX,
        media_type::DOCKER_MANIFEST_LIST
    );
    Cache::new(get(&format!("manifests/{tag}"), &accept), |digest| {
        let bytes = get(&format!("blobs/{digest}"), "Accept: */*");
        assert_eq!(Digest::sha256(&bytes), *digest);
        bytes
    })
}

/// Returns what a build says in its step of that name.
fn lines(run: &Run, step: &str) -> Vec<String> {
    run.step(step).lines
}

macro_rules! registry {
    () => {
        match Registry::start().and_then(|registry| install(&["curl"]).map(|()| registry)) {
            Ok(registry) => registry,
            Err(error) => skip!("no registry: {error:#}"),
        }
    };
}

#[test]
fn a_local_cache_is_an_oci_layout() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let caches = Layout::of(&project);
    let metadata = project.scratch().join("metadata.json");
    let run = project
        .build(&[
            "--cache-to",
            &caches.to(",mode=max"),
            "--metadata-file",
            metadata.to_str().unwrap(),
        ])
        .success();
    let cache = caches.cache("latest");
    assert_eq!(caches.blobs(), caches.blobs_of(&["latest"]));
    assert_eq!(
        fs::read(caches.0.join("oci-layout")).unwrap(),
        layout::OCI_LAYOUT
    );
    assert!(
        fs::read_dir(caches.0.join("ingest"))
            .unwrap()
            .next()
            .is_none()
    );
    // Each step has its result, also those of the other stage; on the base image.
    assert_eq!(cache.results().len(), 6);
    let lengths: BTreeSet<usize> = cache.results().iter().map(|r| r.layers.len()).collect();
    assert_eq!(lengths, (2..=5).collect());
    for layer in &cache.layers {
        assert_eq!(layer.media_type, media_type::LAYER_GZIP);
        assert!(layer.annotations.contains_key("containerd.io/uncompressed"));
    }

    let entry = &caches.index().manifests[0];
    assert_eq!(entry.media_type, media_type::MANIFEST);
    let told = lines(&run, "exporting cache to client directory");
    for line in [
        "preparing build cache for export".to_owned(),
        "sending cache export".to_owned(),
        format!("writing layer {}", cache.layers[0].digest),
        format!("writing config {}", Digest::sha256(&cache.config)),
        format!("writing cache image manifest {}", entry.digest),
    ] {
        assert!(
            told.iter().any(|told| told.starts_with(&line)),
            "{line}: {told:?}"
        );
    }
    let metadata: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let manifest: Descriptor =
        serde_json::from_str(metadata["cache.manifest"].as_str().unwrap()).unwrap();
    assert_eq!(manifest.digest, entry.digest);

    if let Err(error) = install(&["skopeo"]) {
        skip!("no skopeo: {error:#}");
    }
    let place = format!("oci:{}:latest", caches.0.display());
    let raw = Run::of(Command::new("skopeo").args(["inspect", "--raw", &place])).success();
    assert_eq!(raw.stdout, cache.manifest);
}

#[test]
fn a_cached_rebuild_exports_the_same_cache() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let caches = Layout::of(&project);
    for tag in ["one", "two"] {
        let to = caches.to(&format!(",mode=max,tag={tag}"));
        let _ = project.build(&["--cache-to", &to]).success();
    }
    let (one, two) = (caches.cache("one"), caches.cache("two"));
    assert_eq!(one.manifest, two.manifest);
}

#[test]
fn min_has_the_layers_of_the_result_only() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let caches = Layout::of(&project);
    let archive = project.scratch().join("image.tar");
    let _ = project
        .build(&[
            "--cache-to",
            &caches.to(",tag=min"),
            "--cache-to",
            &caches.to(",tag=max,mode=max"),
            "-o",
            &format!("type=oci,dest={}", archive.display()),
        ])
        .success();
    let (min, max) = (caches.cache("min"), caches.cache("max"));
    assert_eq!(min.records(), max.records());
    assert_eq!((min.results().len(), max.results().len()), (4, 6));
    let image = OciArchive::open(&archive).unwrap();
    let image: BTreeSet<Digest> = image
        .config()
        .unwrap()
        .rootfs
        .diff_ids
        .into_iter()
        .collect();
    assert_eq!(min.diff_ids(), image);
    assert!(max.diff_ids().is_superset(&image) && max.diff_ids() != image);
}

#[test]
fn manifests_have_the_form_that_is_asked_for() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let caches = Layout::of(&project);
    for (tag, attributes, expected, docker) in [
        ("image", "", media_type::MANIFEST, false),
        ("index", ",image-manifest=false", media_type::INDEX, false),
        (
            "docker",
            ",oci-mediatypes=false",
            media_type::DOCKER_MANIFEST_LIST,
            true,
        ),
    ] {
        let to = caches.to(&format!(",tag={tag}{attributes}"));
        let run = project.build(&["--cache-to", &to]).success();
        let cache = caches.cache(tag);
        let index = caches.index();
        let entry = layout::find(&index, tag).unwrap();
        assert_eq!(entry.media_type, expected);
        let manifest: serde_json::Value = serde_json::from_slice(&cache.manifest).unwrap();
        assert_eq!(manifest["mediaType"], expected);
        let is_docker = |layer: &Descriptor| layer.media_type == media_type::DOCKER_LAYER_GZIP;
        assert_eq!(cache.layers.iter().all(is_docker), docker, "{tag}");
        let kind = if tag == "image" { "image " } else { "" };
        let line = format!("writing cache {kind}manifest {}", entry.digest);
        let told = lines(&run, "exporting cache to client directory");
        assert!(told.iter().any(|told| told.starts_with(&line)), "{told:?}");
    }
    let records = caches.cache("image").records();
    assert_eq!(caches.cache("docker").records(), records);
    let to = caches.to(",image-manifest=true,oci-mediatypes=false");
    let run = project.build(&["--cache-to", &to]).exit(1);
    let _ = run.says("`image-manifest=true` and `oci-mediatypes=false` exclude each other");
}

#[test]
fn layers_are_compressed_as_asked_for() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let caches = Layout::of(&project);
    for (compression, expected) in [
        ("zstd", media_type::LAYER_ZSTD),
        ("uncompressed", media_type::LAYER),
        ("gzip,compression-level=1", media_type::LAYER_GZIP),
    ] {
        let to = caches.to(&format!(
            ",compression={compression},force-compression=true,reset=true"
        ));
        let _ = project.build(&["--cache-to", &to]).success();
        let cache = caches.cache("latest");
        for layer in &cache.layers {
            assert_eq!(layer.media_type, expected);
        }
    }
}

#[test]
fn a_directory_holds_its_caches_and_nothing_more() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let caches = Layout::of(&project);
    let export = |content: &str, more: &str| {
        project.write(&[("app.txt", content)]);
        let _ = project.build(&["--cache-to", &caches.to(more)]).success();
    };
    export("kept", ",tag=kept");
    let kept = caches.cache("kept");
    // What was there of somebody else's stays.
    fs::write(caches.0.join("blobs/sha256/README"), "mine").unwrap();
    let mut sizes = BTreeSet::new();
    for content in ["1", "2", "3", "4"] {
        export(content, "");
        let mut expected = caches.blobs_of(&["kept", "latest"]);
        expected.insert("README".to_owned());
        assert_eq!(caches.blobs(), expected);
        assert_eq!(caches.index().manifests.len(), 2);
        sizes.insert(expected.len());
    }
    assert_eq!(sizes.len(), 1, "it does not grow");
    assert_eq!(caches.cache("kept").manifest, kept.manifest);
    export("5", ",reset=true");
    assert_eq!(caches.index().manifests.len(), 1);
    let mut expected = caches.blobs_of(&["latest"]);
    expected.insert("README".to_owned());
    assert_eq!(caches.blobs(), expected);
    // A damaged index is no reason to fail; what it led to can't be known any more.
    fs::write(caches.0.join("index.json"), "{").unwrap();
    export("6", "");
    assert_eq!(caches.index().manifests.len(), 1);
}

#[test]
fn a_registry_gets_the_cache() {
    let project = project!(Base::Busybox);
    let registry = registry!();
    write_stages(&project);
    let name = format!("{}/app:cache", registry.host());
    let run = project
        .build(&["--cache-to", &format!("type=registry,ref={name},mode=max")])
        .success();
    let cache = fetch(&registry, "app", "cache");
    assert_eq!(cache.results().len(), 6);
    let told = lines(&run, "exporting cache to registry");
    for line in [
        "preparing build cache for export".to_owned(),
        "pushing layers".to_owned(),
        format!("writing layer {}", cache.layers[0].digest),
        format!("writing config {}", Digest::sha256(&cache.config)),
        format!(
            "writing cache image manifest {}",
            Digest::sha256(&cache.manifest)
        ),
    ] {
        assert!(
            told.iter().any(|told| told.starts_with(&line)),
            "{line}: {told:?}"
        );
    }
    // A name alone is one in a registry.
    project.write(&[("app.txt", "changed")]);
    let _ = project.build(&["--cache-to", &name]).success();
    assert_ne!(fetch(&registry, "app", "cache").manifest, cache.manifest);
    for attributes in ["image-manifest=false", "oci-mediatypes=false"] {
        let to = format!("type=registry,ref={name},{attributes}");
        let _ = project.build(&["--cache-to", &to]).success();
        assert_eq!(fetch(&registry, "app", "cache").results().len(), 4);
    }
    if let Err(error) = install(&["skopeo"]) {
        skip!("no skopeo: {error:#}");
    }
    let place = format!("docker://{name}");
    let skopeo = ["inspect", "--raw", "--tls-verify=false", &place];
    let raw = Run::of(Command::new("skopeo").args(skopeo)).success();
    let index: ImageIndex = serde_json::from_slice(&raw.stdout).unwrap();
    assert_eq!(index.media_type, media_type::DOCKER_MANIFEST_LIST);
}

#[test]
fn what_was_done_is_exported_when_a_later_step_fails() {
    let project = project!(Base::Busybox);
    let caches = Layout::of(&project);
    project.write(&[
        (
            "Dockerfile",
            "FROM busybox\nRUN echo done > /done\nRUN test -e /fixed && echo fixed > /f\n",
        ),
        ("unused", ""),
    ]);
    let off = caches.to(",on-failure=false");
    let run = project.build(&["--cache-to", &off]).exit(1);
    assert!(!caches.0.exists(), "{}", run.stderr);
    let run = project.build(&["--cache-to", &caches.to("")]).exit(1);
    let run = run.says("process \"/bin/sh -c test -e /fixed");
    let told = lines(&run, "exporting cache to client directory");
    assert!(told.iter().any(|line| line.starts_with("DONE")), "{told:?}");
    let cache = caches.cache("latest");
    assert_eq!(cache.results().len(), 1);
    assert_eq!(cache.results()[0].layers.len(), 2);
}

#[test]
fn a_failure_to_export_fails_the_build_unless_ignored() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    fs::write(project.scratch().join("caches"), "a file").unwrap();
    let caches = Layout::of(&project);
    let run = project
        .build(&["-t", "app", "--cache-to", &caches.to("")])
        .exit(1);
    let _ = run.says("cannot export the cache to `");
    let ignored = caches.to(",ignore-error=true");
    let run = project.build(&["--cache-to", &ignored]).success();
    let told = lines(&run, "exporting cache to client directory");
    assert!(
        told.iter().any(|line| line.starts_with("ERROR")),
        "{told:?}"
    );
    for (one, two) in [
        (caches.to(""), caches.to(",tag=latest,mode=max")),
        ("type=inline".to_owned(), "type=inline".to_owned()),
    ] {
        let run = project
            .build(&["--cache-to", &one, "--cache-to", &two])
            .exit(1);
        let _ = run.says("duplicate cache exports");
    }
}

/// Returns the config of an image in an archive.
fn config(archive: &Path) -> (ImageConfig, ImageManifest) {
    let archive = OciArchive::open(archive).unwrap();
    (archive.config().unwrap(), archive.manifest().unwrap())
}

#[test]
fn an_image_may_hold_its_cache() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let archive = project.scratch().join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let build = |args: &[&str]| {
        let mut all = vec!["-o", &output, "-t", "held"];
        all.extend(args);
        let run = project.build(&all).success();
        (config(&archive), run)
    };
    let ((plain, _), _) = build(&[]);
    assert!(!plain.other.contains_key(inline::FIELD));
    let ((held, manifest), run) = build(&["--build-arg", "BUILDKIT_INLINE_CACHE=1"]);
    let told = lines(&run, "exporting to oci image format");
    let line = "preparing layers for inline cache";
    assert!(told.iter().any(|told| told.starts_with(line)), "{told:?}");
    let cache = Imported::from_image(&held.to_json(), &manifest.layers)
        .unwrap()
        .unwrap();
    let results: Vec<usize> = cache
        .records
        .iter()
        .flat_map(|record| &record.results)
        .map(|result| result.layers.len())
        .collect();
    assert_eq!(BTreeSet::from_iter(results), (2..=5).collect());

    // The same cached, and asked for in the other way.
    let ((again, _), _) = build(&["--cache-to", "type=inline"]);
    assert_eq!(again.to_json(), held.to_json());
    let ((off, _), _) = build(&["--build-arg", "BUILDKIT_INLINE_CACHE=0"]);
    assert!(!off.other.contains_key(inline::FIELD));

    // What a base image holds is about that image.
    let _ = project
        .build(&["-t", "held", "--build-arg", "BUILDKIT_INLINE_CACHE=1"])
        .success();
    project.write(&[("Dockerfile", "FROM held\nRUN echo more > /more\n")]);
    let ((derived, _), _) = build(&[]);
    assert!(!derived.other.contains_key(inline::FIELD));
}

#[test]
fn nothing_is_exported_of_a_build_without_steps() {
    let project = project!(Base::Busybox);
    project.write(&[("Dockerfile", "FROM busybox\nLABEL a=b\n")]);
    let caches = Layout::of(&project);
    let _ = project.build(&["--cache-to", &caches.to("")]).success();
    assert!(!caches.0.exists());
}

#[test]
fn bad_attributes_are_named() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    for (args, expected) in [
        (
            ["--cache-to", "type=s3,bucket=b"],
            "`type=s3` is not supported yet",
        ),
        (
            ["--cache-from", "type=gha"],
            "`type=gha` is not supported yet",
        ),
        (["--cache-to", "type=local"], "`type=local` needs `dest`"),
        (
            ["--cache-from", "type=inline"],
            "inline cache is read from an image",
        ),
        (
            ["--cache-to", "type=registry,ref=a,colour=red"],
            "`colour` is no attribute of `type=registry`",
        ),
    ] {
        let _ = project.build(&args).exit(1).says(expected);
    }
    let run = project
        .build(&["--cache-to", "type=inline,mode=most"])
        .success();
    let _ = run.says("WARNING: unknown cache mode `most`: taken as `min`");
}

#[test]
fn what_was_imported_is_exported_as_it_is() {
    let project = project!(Base::Busybox);
    let registry = registry!();
    write_stages(&project);
    let name = |tag: &str| format!("{}/app/{tag}:cache", registry.host());
    let to = |tag: &str| format!("type=registry,ref={},mode=max", name(tag));
    let _ = project.build(&["--cache-to", &to("one")]).success();

    // A machine that has nothing but the base image.
    let other = project!(Base::Busybox);
    write_stages(&other);
    let build = |from: &str, more: &[&str]| {
        let mut args = vec!["--cache-from", from, "--output", "type=cacheonly"];
        args.extend(more);
        let run = other.build(&args).success();
        assert_eq!(run.ran(), [""; 0], "{}", run.stderr);
        run
    };
    let run = build(&name("one"), &["--cache-to", &to("two")]);
    let one = fetch(&registry, "app/one", "cache");
    let two = fetch(&registry, "app/two", "cache");
    assert_eq!(one.config, two.config);
    // The registry takes the layers from the other repository.
    let told = lines(&run, "exporting cache to registry");
    let sent = |line: &&String| line.starts_with("sha256:") && line.contains("MB");
    assert_eq!(told.iter().find(sent), None);

    // Layers that are nowhere in the store go into a directory, too.
    let caches = Layout::of(&other);
    let _ = build(&name("one"), &["--cache-to", &caches.to(",mode=max")]);
    assert_eq!(caches.cache("latest").config, one.config);
    // And what an image holds is told of the same results.
    let archive = other.scratch().join("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let inline = [
        "--cache-from",
        &name("one"),
        "--cache-to",
        "type=inline",
        "-o",
        &output,
    ];
    let _ = other.build(&inline).success();
    let (held, manifest) = config(&archive);
    let held = Imported::from_image(&held.to_json(), &manifest.layers).unwrap();
    assert_eq!(held.unwrap().records.len(), one.records().len());
}

#[test]
fn several_builds_may_write_to_one_directory_at_once() {
    let project = project!(Base::Busybox);
    write_stages(&project);
    let caches = Layout::of(&project);
    let tags = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        for tag in tags {
            let to = caches.to(&format!(",tag={tag},compression=zstd"));
            let project = &project;
            scope.spawn(move || {
                let _ = project.build(&["--cache-to", &to]).success();
            });
        }
    });
    assert_eq!(caches.index().manifests.len(), tags.len());
    assert_eq!(caches.blobs(), caches.blobs_of(&tags));
}

#[test]
fn what_a_step_that_runs_again_made_is_not_taken_from_an_older_cache() {
    let project = project!(Base::Busybox);
    let dockerfile = "FROM busybox AS tools\n\
        RUN cat /proc/sys/kernel/random/uuid > /tool\n\
        FROM busybox\n\
        COPY --from=tools /tool /tool\n\
        RUN cat /tool\n";
    project.write(&[("Dockerfile", dockerfile)]);
    let caches = Layout::of(&project);
    let _ = project
        .build(&["--cache-to", &caches.to(",mode=max")])
        .success();
    let other = project!(Base::Busybox);
    other.write(&[("Dockerfile", dockerfile)]);
    let from = format!("type=local,src={}", caches.0.display());
    let again = ["--cache-from", &from, "--no-cache-filter", "tools"];
    let to = Layout::of(&other);
    let run = other
        .build(&[&again[..], &["--cache-to", &to.to(",mode=max")]].concat())
        .success();
    for step in ["RUN cat /proc", "COPY", "RUN cat /tool"] {
        assert!(!run.step(step).is_cached(), "{step}: {}", run.stderr);
    }
    // Nor does the new cache say that the older content leads to the new result.
    let older = caches.cache("latest").records();
    let newer = to.cache("latest").records();
    assert_eq!(older.difference(&newer).count(), 1);
    assert_eq!(newer.difference(&older).count(), 1);
}
