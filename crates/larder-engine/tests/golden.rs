//! Builds what BuildKit was recorded building, and compares: records, config, history, diff IDs.
//!
//! The test has its own `main`, since the executor starts this program again.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one prints its own report"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use larder_cache::format::CacheConfig;
use larder_cache::{Exported, Imported, Link, Record};
use larder_engine::event::BuildEvent;
use larder_engine::request::{
    ArchiveOutput, BuildRequest, CacheExport, CacheImport, CacheMode, CacheTarget, ContextSource,
    Destination, DockerfileSource, ImageOptions, LayerCompression, Output, SecretBytes,
    SecretProvider,
};
use larder_engine::{CancelFlag, Engine, EngineOptions};
use larder_oci::{Digest, ImageConfig, ImageIndex, ImageManifest};
use larder_testkit::Base;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde::Deserialize;

const EPOCH: i64 = 1_700_000_000;

fn main() {
    larder_exec::init();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: base images can be made by root only");
        return;
    }
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names: Vec<String> = std::fs::read_dir(&cases)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| cases.join(name).is_dir() && name.contains(&filter))
        .collect();
    names.sort();
    let scratch = tempfile::tempdir().unwrap();
    let engine = Engine::open(EngineOptions::new(scratch.path().join("root"))).unwrap();
    let base = import_busybox(&engine).unwrap();
    let mut failed = 0;
    for name in &names {
        match check(&engine, &cases.join(name), scratch.path(), &base) {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED\n{error:#}\n");
            }
        }
    }
    let outcome = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {outcome}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
        names.len() - failed
    );
    larder_exec::shutdown();
    if failed > 0 {
        std::process::exit(101);
    }
}

/// What tells our base image from the recorded one.
struct BaseImage {
    diff_id: String,
    history_count: usize,
}

/// The recorded base image's root records (by manifest, and by chain ID) and its diff ID.
const RECORDED_ROOTS: [&str; 2] = [
    "sha256:52b70514e36171c139f8175b0a6d5db7fc8fb47baf7a9b408a0edc2a27c8a22c",
    "sha256:ddd25b882f0da8a18310c59e0281afa28063135f99546df85cc80681003c2aff",
];
const RECORDED_DIFF_ID: &str =
    "sha256:c9b4a9e21e5b07d37abe127f933039b0ddaaf2471cc8c2c3bdab316f964dc161";

fn import_busybox(engine: &Engine) -> Result<BaseImage> {
    let mut archive = std::fs::File::open(Base::Busybox.archive()?)?;
    engine.load_images(&mut archive, &["busybox:latest".parse()?])?;
    let image = engine.image("busybox:latest", None)?;
    Ok(BaseImage {
        diff_id: image.config.rootfs.diff_ids[0].to_string(),
        history_count: image.config.history.len(),
    })
}

/// Where the cache is that BuildKit exported for a case, if it did.
fn recorded_cache(name: &str) -> std::path::PathBuf {
    let caches = Path::new(env!("CARGO_MANIFEST_DIR")).join("../larder-cache/tests/golden");
    caches.join(format!("{name}.json"))
}

fn check(engine: &Engine, case: &Path, scratch: &Path, base: &BaseImage) -> Result<()> {
    let name = case
        .file_name()
        .context("a case has a name")?
        .to_string_lossy()
        .into_owned();
    let context = scratch.join(&name);
    copy_context(&case.join("context"), &context)?;
    let archive = scratch.join(format!("{name}.tar"));
    let exported = scratch.join(format!("{name}.exported"));
    let request = || -> Result<BuildRequest> {
        Ok(BuildRequest {
            dockerfile: DockerfileSource::Text(std::fs::read(case.join("Dockerfile"))?),
            build_args: vec![("SOURCE_DATE_EPOCH".to_owned(), EPOCH.to_string())],
            secrets: Arc::new(Token),
            outputs: vec![Output::Oci(ArchiveOutput {
                destination: Destination::File(archive.clone()),
                names: Vec::new(),
                options: ImageOptions {
                    rewrite_timestamp: true,
                    ..ImageOptions::default()
                },
            })],
            cache_exports: vec![CacheExport {
                mode: CacheMode::Max,
                compression: LayerCompression::Uncompressed,
                force_compression: true,
                ..CacheExport::new(CacheTarget::Local {
                    path: exported.clone(),
                    tag: None,
                    reset: false,
                })
            }],
            ..BuildRequest::new(ContextSource::Directory(context.clone()))
        })
    };
    let log = std::sync::Mutex::new(String::new());
    let sink = |event: BuildEvent| {
        if let BuildEvent::Log(line) = event {
            log.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&line.data));
        }
    };
    let built = engine
        .build(request()?, &sink, &CancelFlag::new())
        .map_err(|error| anyhow::anyhow!("{}\n{}", error.full_message(), log.lock().unwrap()))?;
    check_config(case, &archive, base, &name)?;
    let recorded = recorded_cache(&name);
    ensure!(
        recorded.exists() == built.cache_manifest.is_some(),
        "a cache is exported, or not, other than by BuildKit"
    );
    if recorded.exists() {
        let records = check_cache(&recorded, &exported)?;
        let request = BuildRequest {
            outputs: Vec::new(),
            cache_exports: Vec::new(),
            ..request()?
        };
        check_import(&name, scratch, request, &records)?;
    }
    let again = engine.build(request()?, &sink, &CancelFlag::new())?;
    let ran: Vec<_> = again
        .steps
        .iter()
        .filter(|step| !step.cached)
        .map(|step| &step.name)
        .collect();
    ensure!(ran.is_empty(), "these steps ran again: {ran:?}");
    let digest = |outcome: &larder_engine::request::BuildOutcome| {
        outcome
            .image
            .as_ref()
            .map(|image| image.descriptor.digest.clone())
    };
    ensure!(
        digest(&built) == digest(&again),
        "the cached rebuild has another digest"
    );
    ensure!(
        built.cache_manifest == again.cache_manifest,
        "the cached rebuild exports another cache"
    );
    Ok(())
}

/// Checks that all steps are found in the cache that BuildKit wrote. None of its layers is there.
fn check_import(
    name: &str,
    scratch: &Path,
    mut request: BuildRequest,
    records: &[Record],
) -> Result<()> {
    let recorded = std::fs::read_to_string(recorded_cache(name))?;
    // Our base image has other digests.
    let is_ours =
        |record: &&Record| record.inputs.is_empty() && !recorded.contains(record.digest.as_str());
    let mut ours = records.iter().filter(is_ours).cycle();
    let mut adapted = recorded.clone();
    for root in RECORDED_ROOTS {
        if let Some(record) = ours.next() {
            adapted = adapted.replace(root, record.digest.as_str());
        }
    }
    let mut cache: serde_json::Value = serde_json::from_str(&adapted)?;
    let layout = scratch.join(format!("{name}.cache"));
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let config = serde_json::to_vec(&cache["config"])?;
    let config_digest = Digest::sha256(&config);
    std::fs::write(blobs.join(config_digest.hex()), &config)?;
    cache["manifest"]["config"]["digest"] = config_digest.to_string().into();
    let manifest = serde_json::to_vec(&cache["manifest"])?;
    let manifest_digest = Digest::sha256(&manifest);
    std::fs::write(blobs.join(manifest_digest.hex()), &manifest)?;
    let root = scratch.join(format!("{name}.root"));
    let engine = Engine::open(EngineOptions::new(root.clone()))?;
    import_busybox(&engine)?;
    request.cache_imports = vec![CacheImport::Local {
        path: layout,
        digest: Some(manifest_digest),
        tag: None,
    }];
    let built = engine
        .build(request, &|_| {}, &CancelFlag::new())
        .map_err(|error| anyhow::anyhow!("with BuildKit's cache: {}", error.full_message()))?;
    let ran: Vec<_> = built.steps.iter().filter(|step| !step.cached).collect();
    ensure!(
        ran.is_empty(),
        "with BuildKit's cache these steps ran: {ran:?}"
    );
    Ok(std::fs::remove_dir_all(root)?)
}

struct Token;

impl SecretProvider for Token {
    fn secret(&self, id: &str) -> std::io::Result<Option<SecretBytes>> {
        Ok((id == "tok").then(|| SecretBytes::new(b"s3cret".to_vec())))
    }
}

/// Copies a context, with the modes and times that it was recorded with.
fn copy_context(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    if from.exists() {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                copy_context(&entry.path(), &target)?;
            } else if kind.is_symlink() {
                std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target)?;
                set_time(&target)?;
            } else {
                std::fs::copy(entry.path(), &target)?;
                let mode = if entry.file_name() == "run.sh" {
                    0o755
                } else {
                    0o644
                };
                std::fs::set_permissions(&target, Permissions::from_mode(mode))?;
                set_time(&target)?;
            }
        }
    }
    std::fs::set_permissions(to, Permissions::from_mode(0o755))?;
    set_time(to)
}

fn set_time(path: &Path) -> Result<()> {
    let time = Timespec {
        tv_sec: EPOCH,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn check_config(case: &Path, archive: &Path, base: &BaseImage, name: &str) -> Result<()> {
    let text = std::fs::read_to_string(case.join("config.json"))?;
    let mut expected: ImageConfig = serde_json::from_str(&text)?;
    let mut actual = config_of(archive)?;
    let recorded: Digest = RECORDED_DIFF_ID.parse()?;
    if expected.rootfs.diff_ids.first() == Some(&recorded) {
        expected.rootfs.diff_ids[0] = base.diff_id.parse()?;
        expected.history.drain(..1);
        actual.history.drain(..base.history_count);
    }
    if name == "run-cache-owner" {
        expected.rootfs.diff_ids.truncate(1);
        actual.rootfs.diff_ids.truncate(1);
    }
    let pretty = |config: &ImageConfig| serde_json::to_string_pretty(config);
    let (actual, expected) = (pretty(&actual)?, pretty(&expected)?);
    ensure!(
        actual == expected,
        "config differs:\n{}",
        difference(&expected, &actual)
    );
    Ok(())
}

/// Returns the config in an OCI archive.
fn config_of(archive: &Path) -> Result<ImageConfig> {
    let files = archive_files(archive)?;
    let json = |path: &str| -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(
            files
                .get(path)
                .with_context(|| format!("the archive lacks {path}"))?,
        )?)
    };
    let blob = |digest: &serde_json::Value| -> Result<String> {
        Ok(format!(
            "blobs/{}",
            digest
                .as_str()
                .context("a digest is text")?
                .replace(':', "/")
        ))
    };
    let index = json("index.json")?;
    let manifest = json(&blob(&index["manifests"][0]["digest"])?)?;
    Ok(serde_json::from_value(json(&blob(
        &manifest["config"]["digest"],
    )?)?)?)
}

fn archive_files(archive: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut reader = larder_tree::tar::Reader::new(std::fs::File::open(archive)?);
    let mut files = BTreeMap::new();
    while let Some(header) = reader.next_entry()? {
        let mut bytes = Vec::new();
        reader.contents().read_to_end(&mut bytes)?;
        files.insert(header.path.to_string_lossy().into_owned(), bytes);
    }
    Ok(files)
}

/// A cache as BuildKit recorded it, or as larder exported it.
#[derive(Deserialize)]
struct Cache {
    manifest: ImageManifest,
    config: CacheConfig,
}

impl Cache {
    fn records(&self) -> Result<Vec<Record>> {
        Ok(Imported::from_config(&self.config, &self.manifest.layers)?.records)
    }

    /// Reads the only cache of a layout.
    fn read(layout: &Path) -> Result<Self> {
        let blob = |digest: &Digest| {
            let name = digest.to_string().replace(':', "/");
            std::fs::read(layout.join("blobs").join(name))
        };
        let index: ImageIndex = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
        let manifest: ImageManifest = serde_json::from_slice(&blob(&index.manifests[0].digest)?)?;
        let config = serde_json::from_slice(&blob(&manifest.config.digest)?)?;
        Ok(Self { manifest, config })
    }
}

/// Returns records, one a line: digest; for each input the alternatives in order; the number of
/// layers of the result. `name` gives digests their names.
fn lines(records: &[Record], name: impl Fn(&Record) -> String) -> BTreeSet<String> {
    let line = |record: &Record| {
        let alternative = |link: &Link| {
            let selector = link.selector.as_ref().map(Digest::to_string);
            let record = &records[link.record];
            format!("{}/{}", name(record), selector.unwrap_or_default())
        };
        let inputs: Vec<String> = record
            .inputs
            .iter()
            .map(|input| {
                let all: BTreeSet<String> = input.iter().map(alternative).collect();
                all.into_iter().collect::<Vec<_>>().join(" or ")
            })
            .collect();
        let layers = record.results.iter().map(|result| result.layers.len());
        let layers: Vec<usize> = layers.collect();
        format!("{} ({}) {layers:?}", name(record), inputs.join("; "))
    };
    records.iter().map(line).collect()
}

/// Checks that a cache has the records of the recorded one; returns them.
fn check_cache(recorded: &Path, layout: &Path) -> Result<Vec<Record>> {
    let recorded: Cache = serde_json::from_slice(&std::fs::read(recorded)?)?;
    let recorded = recorded.records()?;
    let exported = Cache::read(layout)?;
    let records = exported.records()?;
    ensure!(
        *Exported::new(&records).config() == exported.config,
        "the exported cache is not normalized"
    );
    let known: BTreeSet<&Digest> = recorded.iter().map(|record| &record.digest).collect();
    let expected = lines(&recorded, |record| {
        if RECORDED_ROOTS.contains(&record.digest.as_str()) {
            "base".to_owned()
        } else {
            record.digest.to_string()
        }
    });
    let actual = lines(&records, |record| {
        if record.inputs.is_empty() && !known.contains(&record.digest) {
            "base".to_owned()
        } else {
            record.digest.to_string()
        }
    });
    if actual != expected {
        let join = |lines: &BTreeSet<String>| lines.iter().cloned().collect::<Vec<_>>().join("\n");
        bail!(
            "records differ:\n{}",
            difference(&join(&expected), &join(&actual))
        );
    }
    Ok(records)
}

/// The lines that only one of two texts has.
fn difference(expected: &str, actual: &str) -> String {
    let lines = |text: &str| {
        text.lines()
            .map(str::to_owned)
            .collect::<BTreeSet<String>>()
    };
    let (expected, actual) = (lines(expected), lines(actual));
    let missing = expected.difference(&actual).map(|line| format!("- {line}"));
    let surplus = actual.difference(&expected).map(|line| format!("+ {line}"));
    missing.chain(surplus).collect::<Vec<_>>().join("\n")
}
