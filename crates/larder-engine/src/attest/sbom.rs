//! The list of a result's contents: a generator runs over the result, as BuildKit's protocol for
//! scanners has it, and leaves statements in a directory.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use larder_dockerfile::Lowered;
use larder_llb::{Edge, GraphBuilder, GraphError, VertexMetadata, pb};
use larder_oci::{ImageConfig, Platform};
use larder_tree::beneath::Root;
use rustix::fs::{Dir, Mode, OFlags};
use serde_json::Value;

use super::Attestation;
use super::material::Material;
use crate::error::{BuildError, Result};
use crate::images::ResolvedImage;
use crate::request::Sbom;

const OUT: &str = "/run/out/";
const CORE: &str = "/run/src/core/sbom";
const EXTRAS: &str = "/run/src/extras";
/// Which of the step's outputs the statements are in; the first is its root.
const OUTPUT: usize = 1;
/// As large a statement as is read; BuildKit's limit.
const MAX_STATEMENT_BYTES: u64 = 40 << 20;
/// As many statements as one generator may leave.
const MAX_STATEMENTS: usize = 1000;
/// What a list of contents is.
const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// The step that lists contents, ready to be solved.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The graph, with the result's own steps.
    pub(crate) lowered: Lowered,
    /// The generator's image.
    pub(crate) material: Material,
}

/// Returns the step that lists what `lowered` contains; `None` if that is nothing. The generator
/// runs on `host`.
///
/// # Errors
/// `Invalid` for a generator without a command.
pub(crate) fn scan(
    sbom: &Sbom,
    generator: &ResolvedImage,
    lowered: &Lowered,
    (platform, host): (&Platform, &Platform),
) -> Result<Option<Scan>> {
    let Some(result) = lowered.definition.result().cloned() else {
        return Ok(None);
    };
    let name = sbom.generator.to_string();
    let pinned = generator.image_ref.with_digest(generator.target.clone());
    let args = command(&generator.config);
    if args.is_empty() {
        return Err(BuildError::invalid(format!(
            "scanner {name} does not have cmd"
        )));
    }
    let named = |what: &str| VertexMetadata {
        description: [("llb.customname".to_owned(), format!("[{platform}] {what}"))].into(),
        ..VertexMetadata::default()
    };
    let graph = || -> std::result::Result<_, GraphError> {
        let mut graph = GraphBuilder::new();
        graph.add_definition(&lowered.definition);
        let image = pb::Op {
            op: Some(pb::op::Op::Source(pb::SourceOp {
                identifier: format!("docker-image://{pinned}"),
                ..pb::SourceOp::default()
            })),
            platform: Some(to_pb(host)),
            constraints: Some(pb::WorkerConstraints::default()),
            ..pb::Op::default()
        };
        let image = graph.add(image, &[], named(&name), None)?;
        let mut inputs = vec![
            Edge {
                vertex: image,
                index: 0,
            },
            result,
        ];
        let mut mounts = mounts();
        for (extra, definition) in &lowered.scanned {
            let Some(edge) = definition.result().cloned() else {
                continue;
            };
            graph.add_definition(definition);
            mounts.push(read_only(format!("{EXTRAS}/sbom-{extra}"), inputs.len()));
            inputs.push(edge);
        }
        mounts.sort_by(|a, b| a.dest.cmp(&b.dest));
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args,
                env: env(sbom, &generator.config, !lowered.scanned.is_empty()),
                cwd: working_dir(&generator.config),
                ..pb::Meta::default()
            }),
            mounts,
            ..pb::ExecOp::default()
        };
        let op = pb::Op {
            op: Some(pb::op::Op::Exec(exec)),
            platform: Some(to_pb(host)),
            constraints: Some(pb::WorkerConstraints::default()),
            ..pb::Op::default()
        };
        let step = named(&format!("generating sbom using {name}"));
        let vertex = graph.add(op, &inputs, step, None)?;
        graph.finish(Edge {
            vertex,
            index: OUTPUT,
        })
    };
    let definition = graph().map_err(|error| {
        BuildError::internal("cannot build the graph of the list of contents").with_source(error)
    })?;
    Ok(Some(Scan {
        lowered: Lowered {
            definition,
            scanned: Vec::new(),
            ..lowered.clone()
        },
        material: Material::image(&generator.image_ref, host, &generator.target),
    }))
}

fn command(config: &ImageConfig) -> Vec<String> {
    let config = &config.config;
    let words = config.entrypoint.iter().chain(&config.cmd).flatten();
    words.cloned().collect()
}

fn env(sbom: &Sbom, config: &ImageConfig, has_extras: bool) -> Vec<String> {
    let mut env = config.config.env.clone();
    env.push(format!("BUILDKIT_SCAN_DESTINATION={OUT}"));
    env.push(format!("BUILDKIT_SCAN_SOURCE={CORE}"));
    if has_extras {
        env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
    }
    let parameters = sbom.parameters.iter();
    env.extend(parameters.map(|(key, value)| format!("BUILDKIT_SCAN_{key}={value}")));
    env
}

fn working_dir(config: &ImageConfig) -> String {
    match config.config.working_dir.as_str() {
        "" => "/".to_owned(),
        dir => dir.to_owned(),
    }
}

/// Returns the mounts that each generator gets. Inputs are the generator's image and the result.
fn mounts() -> Vec<pb::Mount> {
    let root = pb::Mount {
        dest: "/".to_owned(),
        ..pb::Mount::default()
    };
    let out = pb::Mount {
        input: -1,
        dest: OUT.to_owned(),
        output: OUTPUT as i64,
        ..pb::Mount::default()
    };
    let mut tmp = pb::Mount {
        input: -1,
        dest: "/tmp".to_owned(),
        output: -1,
        tmpfs_opt: Some(pb::TmpfsOpt { size: 0 }),
        ..pb::Mount::default()
    };
    tmp.set_mount_type(pb::MountType::Tmpfs);
    vec![root, out, read_only(CORE.to_owned(), 1), tmp]
}

fn read_only(dest: String, input: usize) -> pb::Mount {
    pb::Mount {
        input: input as i64,
        dest,
        output: -1,
        readonly: true,
        ..pb::Mount::default()
    }
}

fn to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// Reads the statements that a generator left, that about the result itself first.
///
/// # Errors
/// `Invalid` for files that are no statements, or statements of other types.
pub(crate) fn read(out: &Root) -> Result<Vec<Attestation>> {
    let mut found = BTreeMap::new();
    for name in names(out)? {
        let wrong = |problem: &str| {
            BuildError::invalid(format!("the sbom generator left `{name}`, which {problem}"))
        };
        let file = out
            .open_file(&name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())
            .map_err(|source| wrong("can't be opened").with_source(source))?;
        let file = std::fs::File::from(file);
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(wrong("is no file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_STATEMENT_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| wrong("can't be read").with_source(source))?;
        if bytes.len() as u64 > MAX_STATEMENT_BYTES {
            return Err(wrong("is larger than 40 MiB"));
        }
        let mut statement: Value = serde_json::from_slice(&bytes)
            .map_err(|source| wrong("is no in-toto statement").with_source(source))?;
        let predicate_type = statement["predicateType"].as_str().unwrap_or_default();
        if predicate_type.is_empty() {
            return Err(wrong("is no in-toto statement"));
        }
        if predicate_type != PREDICATE_TYPE {
            let problem = format!("is a `{predicate_type}`: expected a `{PREDICATE_TYPE}`");
            return Err(wrong(&problem));
        }
        let attestation = Attestation {
            predicate_type: predicate_type.to_owned(),
            predicate: statement["predicate"].take(),
            subjects: subjects(statement["subject"].take()),
            file_name: name.clone(),
        };
        let is_extra = name.split('.').next() != Some("sbom");
        found.insert((is_extra, name), attestation);
    }
    Ok(found.into_values().collect())
}

/// Returns the subjects of a statement; none where it is about the result itself.
fn subjects(value: Value) -> Vec<Value> {
    match value {
        Value::Array(subjects) => subjects,
        _ => Vec::new(),
    }
}

fn names(out: &Root) -> Result<Vec<String>> {
    let failed = |source: rustix::io::Errno| {
        BuildError::invalid("cannot read what the sbom generator left").with_source(source)
    };
    let directory = Dir::new(out.open_dir(Path::new("."))?).map_err(failed)?;
    let mut names = Vec::new();
    for entry in directory {
        let entry = entry.map_err(failed)?;
        match entry.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) => names.push(name.to_owned()),
            Err(_) => {
                return Err(BuildError::invalid(
                    "the sbom generator left a file whose name is not UTF-8",
                ));
            }
        }
        if names.len() > MAX_STATEMENTS {
            return Err(BuildError::invalid(format!(
                "the sbom generator left more than {MAX_STATEMENTS} files"
            )));
        }
    }
    Ok(names)
}
