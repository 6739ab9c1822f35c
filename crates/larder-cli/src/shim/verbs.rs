//! Docker's verbs, and larder's for them.

use std::ffi::OsString;

use super::{Call, larder};

/// Docker's words, and larder's.
type Verb = (&'static [&'static str], &'static [&'static str]);

const VERBS: &[Verb] = &[
    (&["build"], &["build"]),
    (&["builder", "build"], &["build"]),
    (&["builder", "prune"], &["prune"]),
    (&["buildx", "build"], &["build"]),
    (&["buildx", "b"], &["build"]),
    (&["bake"], &["bake"]),
    (&["buildx", "bake"], &["bake"]),
    (&["buildx", "f"], &["bake"]),
    (&["buildx", "du"], &["du"]),
    (&["buildx", "prune"], &["prune"]),
    (&["buildx", "version"], &["docker", "buildx-version"]),
    (&["buildx", "ls"], &["docker", "builders"]),
    (&["buildx", "inspect"], &["docker", "builder"]),
    (
        &["buildx", "imagetools", "inspect"],
        &["docker", "imagetools-inspect"],
    ),
    (&["compose"], &["compose"]),
    (&["image", "build"], &["build"]),
    (&["image", "ls"], &["images"]),
    (&["image", "list"], &["images"]),
    (&["image", "rm"], &["rmi"]),
    (&["image", "remove"], &["rmi"]),
    (&["image", "prune"], &["docker", "image-prune"]),
    (&["image", "tag"], &["tag"]),
    (&["image", "push"], &["push"]),
    (&["image", "pull"], &["pull"]),
    (&["image", "save"], &["save"]),
    (&["image", "load"], &["load"]),
    (&["image", "inspect"], &["inspect"]),
    (&["image", "history"], &["history"]),
    (&["images"], &["images"]),
    (&["rmi"], &["rmi"]),
    (&["tag"], &["tag"]),
    (&["push"], &["push"]),
    (&["pull"], &["pull"]),
    (&["save"], &["save"]),
    (&["load"], &["load"]),
    (&["inspect"], &["inspect"]),
    (&["history"], &["history"]),
    (&["run"], &["run"]),
    (&["login"], &["login"]),
    (&["logout"], &["logout"]),
    (&["version"], &["docker", "version"]),
    (&["info"], &["docker", "info"]),
    (&["system", "info"], &["docker", "info"]),
    (&["system", "df"], &["docker", "df"]),
    (&["system", "prune"], &["docker", "system-prune"]),
    (&["help"], &["docker", "verbs"]),
];

/// Verbs that people look for, and why larder has them not.
const ABSENT: &[(&[&str], &str)] = &[
    (&["ps"], NO_CONTAINERS),
    (&["container"], NO_CONTAINERS),
    (&["create"], NO_CONTAINERS),
    (&["start"], NO_CONTAINERS),
    (&["stop"], NO_CONTAINERS),
    (&["kill"], NO_CONTAINERS),
    (&["rm"], NO_CONTAINERS),
    (&["exec"], NO_CONTAINERS),
    (&["logs"], NO_CONTAINERS),
    (&["buildx", "create"], ONE_BUILDER),
    (&["buildx", "use"], ONE_BUILDER),
    (&["buildx", "rm"], ONE_BUILDER),
    (&["buildx", "stop"], ONE_BUILDER),
    (&["context"], ONE_BUILDER),
];

const NO_CONTAINERS: &str =
    "larder runs no containers in the background but those of `docker compose`";
const ONE_BUILDER: &str = "there is one builder, in this process";

/// Puts a line of `docker` into larder's words.
pub(super) fn docker(words: &[OsString], version: bool) -> Result<Call, String> {
    match words.first() {
        None if version => Ok(larder(&["docker", "line", "docker"], &[])),
        None => Ok(larder(&["docker", "verbs"], &[])),
        Some(word) if word == "buildx" => buildx(&words[1..], version),
        Some(word) if word == "compose" => Ok(compose(&words[1..])),
        Some(_) => find(words),
    }
}

/// Puts a line of `docker compose`, without these words, into larder's.
pub(super) fn compose(words: &[OsString]) -> Call {
    match words.split_first() {
        Some((word, rest))
            if ["version", "--version", "-v"]
                .iter()
                .any(|asked| word == asked) =>
        {
            larder(&["docker", "compose-version"], rest)
        }
        _ => larder(&["compose"], words),
    }
}

/// Puts a line of `docker buildx`, without these words, into larder's.
pub(super) fn buildx(words: &[OsString], version: bool) -> Result<Call, String> {
    let (flags, words) = buildx_flags(words)?;
    if words.is_empty() {
        let verb = if version { "buildx-version" } else { "verbs" };
        return Ok(larder(&["docker", verb], &[]));
    }
    let line: Vec<OsString> = std::iter::once("buildx".into())
        .chain(words.iter().cloned())
        .collect();
    let mut call = find(&line)?;
    call.words.extend(flags.builder);
    if flags.debug {
        call.words.insert(0, "--debug".into());
    }
    Ok(call)
}

#[derive(Default)]
struct BuildxFlags {
    /// The flag `--builder` with its value, as given.
    builder: Vec<OsString>,
    debug: bool,
}

/// Reads the flags between `buildx` and its verb.
fn buildx_flags(mut words: &[OsString]) -> Result<(BuildxFlags, &[OsString]), String> {
    let mut flags = BuildxFlags::default();
    while let Some((word, rest)) = words.split_first() {
        match word.to_str() {
            Some("-D" | "--debug") => flags.debug = true,
            Some("--builder") if !rest.is_empty() => {
                flags.builder = words[..2].to_vec();
                words = &words[2..];
                continue;
            }
            Some(text) if text.starts_with("--builder=") => flags.builder = vec![word.clone()],
            Some("-h" | "--help") => return Ok((flags, &[])),
            Some(text) if text.starts_with('-') => return Err(format!("unknown flag: {text}")),
            _ => break,
        }
        words = rest;
    }
    Ok((flags, words))
}

/// Finds the verb that `words` begin with.
fn find(words: &[OsString]) -> Result<Call, String> {
    let begins = |verb: &[&str]| {
        words.len() >= verb.len() && verb.iter().zip(words).all(|(name, word)| word == name)
    };
    if let Some((verb, own)) = VERBS.iter().find(|(verb, _)| begins(verb)) {
        return Ok(larder(own, &words[verb.len()..]));
    }
    if let Some((verb, why)) = ABSENT.iter().find(|(verb, _)| begins(verb)) {
        return Err(format!(
            "`docker {}` is not available: {why}",
            verb.join(" ")
        ));
    }
    // As many words as name groups of verbs, and the one that is no verb of the last.
    let depth = (0..words.len()).find(|&depth| group(&words[..=depth]).is_empty());
    let Some(depth) = depth else {
        return Err(format!(
            "`docker {}` needs a command: {}",
            shown(words),
            group(words).join(", ")
        ));
    };
    Err(format!(
        "`docker {}` is not available in larder",
        shown(&words[..=depth])
    ))
}

/// Returns what can follow `words`, which are no verb by themselves.
fn group(words: &[OsString]) -> Vec<&'static str> {
    let mut next: Vec<&str> = Vec::new();
    for (verb, _) in VERBS {
        let is_within =
            verb.len() > words.len() && verb.iter().zip(words).all(|(name, word)| word == name);
        if is_within && !next.contains(&verb[words.len()]) {
            next.push(verb[words.len()]);
        }
    }
    next
}

fn shown(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Returns Docker's lines that larder answers, one a line.
pub(crate) fn listed() -> String {
    let line = |(verb, _): &Verb| format!("  docker {}\n", verb.join(" "));
    VERBS.iter().map(line).collect()
}
