//! Which files and profiles are meant where no flag says so.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result, Warning};
use crate::variables::Variables;

use super::LoadOptions;

/// The usual names, in order of preference.
const NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];

/// The usual names of files that override them.
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Returns the compose files, in the order in which they override each other.
pub(super) fn compose_files(
    options: &LoadOptions,
    variables: &Variables,
) -> Result<(Vec<PathBuf>, Vec<Warning>)> {
    if !options.files.is_empty() {
        return Ok((options.files.clone(), Vec::new()));
    }
    if let Some(names) = variables.non_empty("COMPOSE_FILE") {
        let separator = variables.non_empty("COMPOSE_PATH_SEPARATOR").unwrap_or(":");
        let names = names.split(separator).filter(|name| !name.is_empty());
        return Ok((names.map(PathBuf::from).collect(), Vec::new()));
    }
    let start = match &options.project_directory {
        Some(directory) => options.working_directory.join(directory),
        None => options.working_directory.clone(),
    };
    for directory in start.ancestors() {
        let found: Vec<&str> = present(directory, &NAMES);
        let Some(name) = found.first() else {
            continue;
        };
        // A file beside the user is called by its name alone.
        let named = |name: &str| {
            if directory == options.working_directory {
                PathBuf::from(name)
            } else {
                directory.join(name)
            }
        };
        let mut warnings = Vec::new();
        if found.len() > 1 {
            let list = found.join(", ");
            let message =
                format!("Found multiple config files with supported names: {list}; using {name}");
            warnings.push(Warning { at: None, message });
        }
        let mut files = vec![named(name)];
        files.extend(
            present(directory, &OVERRIDES)
                .first()
                .map(|name| named(name)),
        );
        return Ok((files, warnings));
    }
    let message = "no configuration file provided: not found\nhint: name one with `-f`, or go to the directory with `compose.yaml`";
    Err(Error::new(ErrorKind::NotFound, message))
}

fn present<'a>(directory: &std::path::Path, names: &[&'a str]) -> Vec<&'a str> {
    let is_there = |name: &&&str| directory.join(name).is_file();
    names.iter().filter(is_there).copied().collect()
}

/// Returns the env files that flags or the environment name.
pub(super) fn env_files(options: &LoadOptions, variables: &Variables) -> Vec<PathBuf> {
    if !options.env_files.is_empty() {
        return options.env_files.clone();
    }
    let names = variables.non_empty("COMPOSE_ENV_FILES").unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(PathBuf::from).collect()
}

/// Returns the profiles that are on.
pub(super) fn profiles(given: &[String], variables: &Variables) -> Vec<String> {
    let named = variables.non_empty("COMPOSE_PROFILES").unwrap_or_default();
    let named = named
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    given
        .iter()
        .cloned()
        .chain(named.map(str::to_owned))
        .collect()
}
