//! `cargo xtask tidy`: the rules of the tree that no compiler checks.

mod tests_named;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use fs_err as fs;
use serde_json::Value;

use crate::run::{cargo, output, workspace};

/// Which of our crates each of our crates may use. A new edge needs its reason in
/// ARCHITECTURE.md.
const EDGES: &[(&str, &[&str])] = &[
    ("larder-oci", &[]),
    ("larder-cache", &["larder-oci"]),
    ("larder-llb", &["larder-oci"]),
    ("larder-bake", &[]),
    ("larder-compose", &[]),
    ("larder-tree", &["larder-oci"]),
    ("larder-dockerfile", &["larder-oci", "larder-llb"]),
    ("larder-solver", &["larder-oci"]),
    ("larder-store", &["larder-oci", "larder-tree"]),
    ("larder-exec", &["larder-oci"]),
    ("larder-registry", &["larder-oci"]),
    (
        "larder-engine",
        &[
            "larder-oci",
            "larder-cache",
            "larder-llb",
            "larder-tree",
            "larder-dockerfile",
            "larder-solver",
            "larder-store",
            "larder-exec",
            "larder-registry",
        ],
    ),
    (
        "larder-cli",
        &[
            "larder-oci",
            "larder-bake",
            "larder-compose",
            "larder-engine",
            "larder-exec",
        ],
    ),
    ("larder-testkit", &["larder-oci"]),
    ("xtask", &["larder-testkit"]),
];

/// Crates that do no I/O, and what they therefore can't use.
const PURE: &[&str] = &[
    "larder-oci",
    "larder-cache",
    "larder-llb",
    "larder-dockerfile",
    "larder-solver",
];
const IO: &[&str] = &[
    "fs-err", "libc", "reqwest", "rusqlite", "rustix", "tempfile", "tokio", "xattr",
];

/// A longer file should be split.
const MAX_LINES: usize = 800;

/// What has no place in the project: folders beside it, and hosts that serve packages.
const FORBIDDEN: &[&str] = &[
    "shared/golden",
    "shared/fixtures",
    "deb.debian.org",
    "pypi.org",
    "pythonhosted.org",
    "index.crates.io",
    "registry.npmjs.org",
];
/// Files that may name them: the list itself, and what cargo writes.
const MAY_NAME: &[&str] = &["xtask/src/tidy.rs", "Cargo.lock"];

pub(crate) fn run() -> Result<()> {
    let mut problems = Vec::new();
    check_edges(&mut problems)?;
    let files = output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(workspace()),
    )?;
    let mut known = tests_named::Known::default();
    for file in files.lines() {
        // A listed file may have been deleted, and some are not text.
        if let Ok(text) = fs::read_to_string(workspace().join(file)) {
            check_file(file, &text, &mut problems);
            known.add(file, &text);
        }
    }
    let page = fs::read_to_string(workspace().join(tests_named::PAGE))?;
    for (line, name) in known.missing(&page) {
        let page = tests_named::PAGE;
        problems.push(format!("{page}:{line}: there is no test or case `{name}`"));
    }
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} problems", problems.len());
    }
    println!("tidy: {} files", files.lines().count());
    Ok(())
}

fn check_edges(problems: &mut Vec<String>) -> Result<()> {
    let metadata =
        output(cargo().args(["metadata", "--no-deps", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = package["name"].as_str().context("no name")?;
        let Some((_, allowed)) = EDGES.iter().find(|(own, _)| *own == name) else {
            problems.push(format!(
                "{name}: not in the list of crates of `cargo xtask tidy`"
            ));
            continue;
        };
        for dependency in package["dependencies"]
            .as_array()
            .context("no dependencies")?
        {
            // Tests may use anything.
            if dependency["kind"] == "dev" {
                continue;
            }
            let used = dependency["name"].as_str().context("no name")?;
            let is_ours = EDGES.iter().any(|(own, _)| *own == used);
            if is_ours && !allowed.contains(&used) {
                problems.push(format!("{name}: must not use {used}"));
            }
            if PURE.contains(&name) && IO.contains(&used) {
                problems.push(format!("{name}: does no I/O, and must not use {used}"));
            }
        }
    }
    Ok(())
}

fn check_file(file: &str, text: &str, problems: &mut Vec<String>) {
    if !MAY_NAME.contains(&file) {
        for (number, line) in text.lines().enumerate() {
            for word in FORBIDDEN.iter().filter(|word| names(line, word)) {
                problems.push(format!("{file}:{}: names `{word}`", number + 1));
            }
        }
    }
    if Path::new(file)
        .extension()
        .is_none_or(|extension| extension != "rs")
    {
        return;
    }
    let lines = code_lines(text);
    if lines > MAX_LINES {
        println!("warning: {file}: {lines} lines without tests, look for a seam");
    }
    if file.ends_with("/src/lib.rs") && !text.contains("**Limitations**") {
        problems.push(format!("{file}: does not tell the crate's **Limitations**"));
    }
    let allows_unsafe = text.contains("(unsafe_code") && !MAY_NAME.contains(&file);
    if allows_unsafe && !file.starts_with("crates/larder-exec/src/sys") {
        problems.push(format!(
            "{file}: only larder-exec's `sys` may allow unsafe code"
        ));
    }
}

/// Returns whether `line` holds `word` where a name may begin: `b.org` is not in `ab.org`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || "_-.}$".contains(c))
    })
}

/// Returns how many lines a source file has before its tests.
fn code_lines(text: &str) -> usize {
    let is_code = |line: &&str| *line != "#[cfg(test)]";
    text.lines().take_while(is_code).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_for_words_and_limits() {
        let check = |file: &str, text: &str| {
            let mut problems = Vec::new();
            check_file(file, text, &mut problems);
            problems.len()
        };
        assert_eq!(check("a.md", "from pypi.org/simple"), 1);
        assert_eq!(check("a.md", "from mypypi.org and PyPI"), 0);
        assert_eq!(check("crates/a/src/lib.rs", "//! Does it all."), 1);
        assert_eq!(
            check("crates/a/src/lib.rs", "//! **Limitations**: none."),
            0
        );
        assert_eq!(
            check(
                "crates/a/src/b.rs",
                "#![allow(unsafe_code, reason = \"x\")]"
            ),
            1
        );
        let sys = "crates/larder-exec/src/sys/mount.rs";
        assert_eq!(check(sys, "#![allow(unsafe_code, reason = \"x\")]"), 0);
    }
}
