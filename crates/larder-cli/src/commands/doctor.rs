//! `larder doctor`

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use larder_compose::{BuildTarget, Dockerfile, LoadOptions, TargetContext, Variables};
use larder_engine::doctor::{self, CacheSource, Finding, FindingKind};

use super::Context;
use crate::args::DoctorArgs;
use crate::args::cache::{self, CacheFromArg};
use crate::exit::{self, Code};
use crate::output;

/// The usual name of a Dockerfile.
const DOCKERFILE: &str = "Dockerfile";
/// The ignore file of a context.
const IGNORE_FILE: &str = ".dockerignore";
/// Directories with a file of one of these names have a compose project.
const COMPOSE_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];

/// A Dockerfile to look at.
struct Subject {
    context: PathBuf,
    dockerfile: PathBuf,
    /// The compose services that are built from it.
    services: Vec<String>,
    sources: Vec<CacheSource>,
}

/// Tells what defeats the cache. Returns 1 if something does.
pub(crate) fn run(args: &DoctorArgs, context: &Context<'_>) -> anyhow::Result<Code> {
    let subjects = subjects(args, context)?;
    let engine = context.engine()?;
    let mut findings: Vec<Finding> = Vec::new();
    for mut subject in subjects {
        let shown = shown(&subject.dockerfile);
        let mut patient = doctor::examine(&subject.context, &subject.dockerfile, &shown)?;
        let services: Vec<&str> = subject.services.iter().map(String::as_str).collect();
        patient.history = engine.past_builds(&subject.context, &subject.dockerfile, &services)?;
        patient.sources = std::mem::take(&mut subject.sources);
        for mut finding in doctor::diagnose(&patient) {
            if matches!(
                finding.kind,
                FindingKind::NoIgnoreFile | FindingKind::LeakyContext
            ) {
                finding.file = ignore_file(&subject, &finding.file);
            }
            // Dockerfiles of one context share its ignore file.
            let is_same = |known: &Finding| {
                (known.kind, &known.file, known.line) == (finding.kind, &finding.file, 0)
            };
            if !findings.iter().any(is_same) {
                findings.push(finding);
            }
        }
    }
    output::print(&match args.format.as_str() {
        "json" => crate::doctor::json(&findings),
        _ => crate::doctor::text(&findings),
    })?;
    Ok(if findings.is_empty() {
        exit::SUCCESS
    } else {
        exit::FAILURE
    })
}

/// Returns where an ignore file lies: in the context, or beside a Dockerfile that has its own.
fn ignore_file(subject: &Subject, name: &str) -> String {
    let directory = match subject.dockerfile.parent() {
        Some(parent) if name != IGNORE_FILE => parent,
        _ => &subject.context,
    };
    shown(&directory.join(name))
}

/// Finds the Dockerfiles to look at.
fn subjects(args: &DoctorArgs, context: &Context<'_>) -> anyhow::Result<Vec<Subject>> {
    let path = &args.path;
    if !path.is_dir() {
        bail!("`{}` is not a directory", path.display());
    }
    let mut subjects = Vec::new();
    let alone = |dockerfile: PathBuf| Subject {
        context: path.clone(),
        dockerfile,
        services: Vec::new(),
        sources: Vec::new(),
    };
    match &args.file {
        Some(file) => subjects.push(alone(file.clone())),
        None => subjects.extend(dockerfiles(path)?.into_iter().map(alone)),
    }
    for target in targets(path, context) {
        add_target(&mut subjects, path, &target, args.file.is_none());
    }
    if subjects.is_empty() {
        bail!(
            "`{}` has neither a Dockerfile nor a compose file that builds something",
            path.display()
        );
    }
    Ok(subjects)
}

/// Returns the Dockerfiles that lie in a directory.
fn dockerfiles(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_named = name == DOCKERFILE
            || name == "dockerfile"
            || name.starts_with("Dockerfile.")
            || name.ends_with(".Dockerfile");
        if is_named && !name.ends_with(".dockerignore") && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Returns what the compose file of a directory builds. One that can't be read is told of.
fn targets(directory: &Path, context: &Context<'_>) -> Vec<BuildTarget> {
    if !COMPOSE_FILES
        .iter()
        .any(|name| directory.join(name).is_file())
    {
        return Vec::new();
    }
    let load = || -> anyhow::Result<Vec<BuildTarget>> {
        let options = LoadOptions {
            working_directory: fs_err::canonicalize(directory)?,
            profiles: vec!["*".to_owned()],
            variables: Variables::of(context.env.iter()),
            ..LoadOptions::default()
        };
        let none: [&str; 0] = [];
        Ok(options.load()?.build_targets(&none)?)
    };
    load()
        .context("the compose file is left out")
        .unwrap_or_else(|error| {
            output::tell(&format!("WARNING: {error:#}"));
            Vec::new()
        })
}

/// Adds what a compose service is built from. `all` says whether Dockerfiles that are not known yet
/// are wanted.
fn add_target(subjects: &mut Vec<Subject>, path: &Path, target: &BuildTarget, all: bool) {
    let TargetContext::Directory(directory) = &target.context else {
        return;
    };
    let dockerfile = match &target.dockerfile {
        Dockerfile::Default => directory.join(DOCKERFILE),
        Dockerfile::Path(file) => directory.join(file),
        Dockerfile::Inline(_) => return,
    };
    let is_same = |a: &Path, b: &Path| match (fs_err::canonicalize(a), fs_err::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    let known = subjects.iter().position(|subject| {
        is_same(&subject.dockerfile, &dockerfile) && is_same(&subject.context, directory)
    });
    let index = match known {
        Some(index) => index,
        None if all && dockerfile.is_file() => {
            subjects.push(Subject {
                context: relative(path, directory),
                dockerfile: relative(path, &dockerfile),
                services: Vec::new(),
                sources: Vec::new(),
            });
            subjects.len() - 1
        }
        None => return,
    };
    subjects[index].services.push(target.name.clone());
    let names = target.cache_from.iter().filter_map(|source| {
        let CacheFromArg(imports) = cache::cache_from(source).ok()?;
        Some(imports.into_iter().map(|import| import.name()))
    });
    let sources = names.flatten().map(|name| CacheSource {
        file: shown(&path.join(&*target.at.file)),
        line: target.at.line,
        name,
    });
    subjects[index].sources.extend(sources);
}

/// Returns an absolute path below `directory` as one that begins like it.
fn relative(directory: &Path, path: &Path) -> PathBuf {
    let absolute = fs_err::canonicalize(directory);
    match absolute.map(|absolute| path.strip_prefix(absolute).map(Path::to_owned)) {
        Ok(Ok(below)) => directory.join(below),
        _ => path.to_owned(),
    }
}

/// Returns a path as people write it.
fn shown(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path);
    path.display().to_string()
}
