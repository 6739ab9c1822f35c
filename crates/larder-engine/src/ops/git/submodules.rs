//! The submodules of a commit.

use std::collections::HashMap;

use larder_llb::git::{Remote, is_commit};

use super::repository::Repository;
use crate::error::{BuildError, Result};

/// The mode of an entry that is a commit of another repository.
const LINK_MODE: &[u8] = b"160000";

/// A repository in a directory of another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Submodule {
    pub(super) remote: Remote,
    pub(super) commit: String,
    /// Where it belongs, relative to the other's top.
    pub(super) path: String,
}

/// What `.gitmodules` says of one.
#[derive(Debug, Default)]
struct Said {
    path: String,
    url: String,
    /// Whether it stays empty.
    is_left_out: bool,
}

/// Returns the submodules of a commit, in the order of their paths.
pub(super) fn list(repository: &Repository<'_>, commit: &str) -> Result<Vec<Submodule>> {
    let links = links(repository, commit)?;
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let said = said(repository, commit);
    let mut submodules = Vec::new();
    for (path, commit) in links {
        let Some(said) = said.iter().find(|said| said.path == path) else {
            return Err(BuildError::invalid(format!(
                "no url found for submodule path '{path}' in .gitmodules"
            )));
        };
        if said.is_left_out {
            continue;
        }
        let wrong = |error: larder_llb::git::GitError| {
            BuildError::invalid(format!("url of submodule path '{path}': {error}"))
        };
        let url = absolute(&super::repository::address(repository.remote), &said.url);
        let url = url.ok_or_else(|| {
            BuildError::invalid(format!("url of submodule path '{path}' leads nowhere"))
        })?;
        submodules.push(Submodule {
            remote: remote(&url).map_err(wrong)?,
            commit,
            path,
        });
    }
    Ok(submodules)
}

/// Refuses what git itself would not check out: what would become another repository's own files.
pub(super) fn check_paths(repository: &Repository<'_>, commit: &str) -> Result<()> {
    for (_, path) in entries(&listing(repository, commit)?) {
        let is_bad = |part: &[u8]| {
            part.is_empty() || part == b"." || part == b".." || part.eq_ignore_ascii_case(b".git")
        };
        if path.split(|byte| *byte == b'/').any(is_bad) {
            let path = String::from_utf8_lossy(path);
            return Err(BuildError::invalid(format!(
                "commit {commit} has a file `{path}`, which no repository may have"
            )));
        }
    }
    Ok(())
}

fn listing(repository: &Repository<'_>, commit: &str) -> Result<Vec<u8>> {
    let listed = repository.run(&["ls-tree", "-r", "-z", "--full-tree", commit]);
    listed.map_err(|failure| repository.failed(failure, "failed to list a commit"))
}

/// Splits a listing into what an entry is, and its path.
fn entries(listing: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    listing.split(|byte| *byte == 0).filter_map(|entry| {
        let tab = entry.iter().position(|byte| *byte == b'\t')?;
        Some((&entry[..tab], &entry[tab + 1..]))
    })
}

/// Returns the paths and the commits of a commit's links.
fn links(repository: &Repository<'_>, commit: &str) -> Result<Vec<(String, String)>> {
    let listing = listing(repository, commit)?;
    let links = entries(&listing).filter_map(|(what, path)| {
        let commit = what.strip_prefix(LINK_MODE)?.strip_prefix(b" commit ")?;
        let commit = String::from_utf8_lossy(commit).into_owned();
        let path = String::from_utf8_lossy(path).into_owned();
        is_commit(&commit).then_some((path, commit))
    });
    Ok(links.collect())
}

/// Reads `.gitmodules`.
fn said(repository: &Repository<'_>, commit: &str) -> Vec<Said> {
    let blob = format!("{commit}:.gitmodules");
    let args = [
        "config",
        "--no-includes",
        "--blob",
        &blob,
        "--null",
        "--list",
    ];
    // Without the file there is nothing to say.
    let told = repository.run(&args).unwrap_or_default();
    parse(&String::from_utf8_lossy(&told))
}

/// Parses `submodule.NAME.KEY\nVALUE\0…`.
fn parse(told: &str) -> Vec<Said> {
    let mut said: HashMap<&str, Said> = HashMap::new();
    for pair in told.split('\0') {
        let Some((key, value)) = pair.split_once('\n') else {
            continue;
        };
        let Some((name, key)) = key
            .strip_prefix("submodule.")
            .and_then(|rest| rest.rsplit_once('.'))
        else {
            continue;
        };
        let said = said.entry(name).or_default();
        match key {
            "path" => value.trim_end_matches('/').clone_into(&mut said.path),
            "url" => value.clone_into(&mut said.url),
            "update" => said.is_left_out = value == "none",
            _ => {}
        }
    }
    said.into_values().collect()
}

/// Parses the address of a submodule, which must name its protocol: what is none is a path of this
/// machine to git.
fn remote(url: &str) -> Result<Remote, larder_llb::git::GitError> {
    let is_address = url.contains("://") || url.contains('@');
    Remote::parse(if is_address { url } else { "file://" })
}

/// Resolves an address that is relative to that of the outer repository, as git does; `None` for
/// one that leads above it.
fn absolute(outer: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Some(url.to_owned());
    }
    let mut base = outer.trim_end_matches('/').to_owned();
    let mut rest = url;
    let mut separator = '/';
    loop {
        if let Some(below) = rest.strip_prefix("../") {
            rest = below;
            let cut = base
                .rfind('/')
                .filter(|&cut| !base[..cut].ends_with([':', '/']));
            match cut {
                Some(cut) => base.truncate(cut),
                // `host:path` has its last directory behind a colon.
                None if !base.contains("://") => {
                    base.truncate(base.rfind(':')?);
                    separator = ':';
                }
                None => return None,
            }
        } else if let Some(below) = rest.strip_prefix("./") {
            rest = below;
        } else {
            return Some(format!("{base}{separator}{}", rest.trim_end_matches('/')));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_are_those_of_git() {
        for (outer, url, expected) in [
            (
                "https://e.com/a/b.git",
                "../c.git",
                Some("https://e.com/a/c.git"),
            ),
            ("https://e.com/a/b.git/", "../../c", Some("https://e.com/c")),
            ("https://e.com/a", "./c", Some("https://e.com/a/c")),
            ("https://e.com/a", "../../evil.com/c", None),
            ("git@e.com:a/b", "../c", Some("git@e.com:a/c")),
            ("git@e.com:b", "../c", Some("git@e.com:c")),
            ("ssh://e.com/a/b", ".././c/", Some("ssh://e.com/a/c")),
            (
                "https://e.com/a",
                "https://f.com/c",
                Some("https://f.com/c"),
            ),
            ("https://e.com/a", "/srv/c", Some("/srv/c")),
        ] {
            assert_eq!(absolute(outer, url).as_deref(), expected, "{outer} {url}");
        }
    }

    #[test]
    fn addresses_on_this_machine_are_refused() {
        for url in [
            "/srv/c",
            "file:///srv/c",
            "ext::sh -c x",
            "c",
            "-x",
            "host:path",
        ] {
            assert!(remote(url).is_err(), "{url}");
        }
        assert!(remote("git@e.com:c").is_ok() && remote("https://e.com/c").is_ok());
    }

    #[test]
    fn gitmodules_are_read() {
        let told = "submodule.a.b.path\nlibs/a/\0submodule.a.b.url\n../x\0submodule.n.update\nnone\0other\nx\0";
        let mut said = parse(told);
        said.sort_by(|a, b| b.path.cmp(&a.path));
        assert_eq!((&*said[0].path, &*said[0].url), ("libs/a", "../x"));
        assert!(said[1].is_left_out);
    }
}
