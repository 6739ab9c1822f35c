//! Where a reference leads.

use larder_llb::git::{GitSource, is_commit};
use larder_oci::Digest;

use super::Access;
use super::auth::Auth;
use super::command::{Call, Git};
use crate::error::{BuildError, ErrorClass, Result};

const BRANCHES: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// Where a reference leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The commit, or the tag object that names it.
    pub(crate) object: String,
    /// The commit, if `object` is known to be a tag object.
    pub(crate) peeled: Option<String>,
    /// The reference in full: `refs/heads/…`, `refs/tags/…`, or a commit.
    pub(crate) reference: String,
}

impl Resolved {
    /// Returns the digest that identifies in cache keys what `source` asks for.
    pub(crate) fn cache_digest(&self, source: &GitSource) -> Digest {
        source.cache_digest(self.commit(source), &self.reference)
    }

    /// Returns what `source` stands for. With `.git`, and in bundles, the tag itself is part of the
    /// result; else only what it names.
    pub(super) fn commit(&self, source: &GitSource) -> &str {
        match &self.peeled {
            Some(commit) if !source.has_tag() => commit,
            _ => &self.object,
        }
    }
}

/// Returns where a reference leads that says so itself.
pub(super) fn without_asking(source: &GitSource) -> Result<Option<Resolved>> {
    let reference = &source.reference;
    let resolved = |object: &str, reference: String| Resolved {
        object: object.to_owned(),
        peeled: None,
        reference,
    };
    if is_commit(reference) {
        let resolved = resolved(reference, reference.clone());
        check(source, &resolved)?;
        return Ok(Some(resolved));
    }
    if source.bundle.is_some() && reference.is_empty() {
        let commit = &source.checksum;
        return Ok(Some(resolved(commit, commit.clone())));
    }
    if source.fetch_by_commit {
        let name = match reference.as_str() {
            "" => String::new(),
            full if full.starts_with("refs/") => full.to_owned(),
            name => format!("{BRANCHES}{name}"),
        };
        return Ok(Some(resolved(&source.checksum, name)));
    }
    Ok(None)
}

/// Checks that it is the commit that was asked for.
pub(super) fn check(source: &GitSource, resolved: &Resolved) -> Result<()> {
    let expected = source.checksum.to_ascii_lowercase();
    let candidates = || std::iter::once(&resolved.object).chain(&resolved.peeled);
    if candidates().any(|commit| commit.starts_with(&expected)) {
        return Ok(());
    }
    let found: Vec<&str> = candidates().map(String::as_str).collect();
    Err(BuildError::invalid(format!(
        "expected checksum to match {}, got {}",
        source.checksum,
        found.join(" or ")
    )))
}

/// Asks the server.
pub(super) fn ask(source: &GitSource, access: Access<'_>) -> Result<Resolved> {
    let auth = Auth::new(source, access)?;
    let git = Git {
        access,
        auth: &auth,
    };
    let url = super::repository::address(&source.remote);
    let shown = source.remote.redacted();
    let failed = format!("failed to fetch remote {shown}");
    if source.reference.is_empty() {
        let call = Call::new(&["ls-remote", "--symref", "--", &url, "HEAD"]);
        let told = git.run(call).map_err(|failure| failure.of(&failed))?;
        return default_branch(&String::from_utf8_lossy(&told)).ok_or_else(|| {
            let message = format!("could not find default branch for repository: {shown}");
            BuildError::new(ErrorClass::NotFound, message)
        });
    }
    let peeled = format!("{}^{{}}", source.reference);
    let call = Call::new(&["ls-remote", "--", &url, &source.reference, &peeled]);
    let told = git.run(call).map_err(|failure| failure.of(&failed))?;
    choose(source, &told)
}

/// Returns where the reference leads, by what was told of it.
pub(super) fn choose(source: &GitSource, told: &[u8]) -> Result<Resolved> {
    named(&source.reference, &String::from_utf8_lossy(told)).ok_or_else(|| {
        let message = format!("repository does not contain ref {}", source.reference);
        BuildError::new(ErrorClass::NotFound, message).context(source.remote.redacted())
    })
}

fn lines(told: &str) -> impl Iterator<Item = (&str, &str)> {
    told.lines().filter_map(|line| line.split_once('\t'))
}

fn default_branch(told: &str) -> Option<Resolved> {
    let (branch, _) =
        lines(told).find(|(what, name)| what.starts_with("ref: ") && *name == "HEAD")?;
    let branch = branch.strip_prefix("ref: ")?;
    let (commit, _) = lines(told).find(|(what, name)| is_commit(what) && *name == "HEAD")?;
    branch.starts_with(BRANCHES).then(|| Resolved {
        object: commit.to_owned(),
        peeled: None,
        reference: branch.to_owned(),
    })
}

/// Finds a reference by its name, which may leave out `refs/`, `refs/heads/` or `refs/tags/`: a
/// branch comes before a tag, as for `git checkout`.
fn named(reference: &str, told: &str) -> Option<Resolved> {
    let find = |name: &str| {
        let mut found = lines(told).filter(|(_, known)| *known == name);
        found.next().map(|(commit, _)| commit.to_owned())
    };
    let bare = |prefix: &str| reference.strip_prefix(prefix).unwrap_or(reference);
    let full = format!("refs/{}", bare("refs/"));
    let branch = format!("{BRANCHES}{}", bare(BRANCHES));
    let tag = format!("{TAGS}{}", bare(TAGS));
    let candidates = [(&full, full == tag), (&branch, false), (&tag, true)];
    let (name, is_tag, object) = candidates
        .into_iter()
        .find_map(|(name, is_tag)| Some((name, is_tag, find(name)?)))?;
    is_commit(&object).then(|| Resolved {
        object,
        peeled: find(&format!("{name}^{{}}")).filter(|commit| is_tag && is_commit(commit)),
        reference: name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn resolved(object: &str, peeled: Option<&str>, reference: &str) -> Resolved {
        Resolved {
            object: object.to_owned(),
            peeled: peeled.map(str::to_owned),
            reference: reference.to_owned(),
        }
    }

    #[test]
    fn names_lead_where_git_checkout_would() {
        let told = format!(
            "{A}\trefs/heads/both\n{B}\trefs/tags/both\n{B}\trefs/tags/v1\n{A}\trefs/tags/v1^{{}}\n\
             {A}\trefs/heads/x/v1\n{B}\trefs/pull/1/head\n"
        );
        for (name, expected) in [
            ("both", Some(resolved(A, None, "refs/heads/both"))),
            ("refs/tags/both", Some(resolved(B, None, "refs/tags/both"))),
            ("tags/both", Some(resolved(B, None, "refs/tags/both"))),
            ("v1", Some(resolved(B, Some(A), "refs/tags/v1"))),
            ("refs/tags/v1", Some(resolved(B, Some(A), "refs/tags/v1"))),
            ("x/v1", Some(resolved(A, None, "refs/heads/x/v1"))),
            (
                "refs/pull/1/head",
                Some(resolved(B, None, "refs/pull/1/head")),
            ),
            ("other", None),
            ("HEAD", None),
        ] {
            assert_eq!(named(name, &told), expected, "{name}");
        }
        assert_eq!(named("x", "nonsense\trefs/heads/x\n"), None);
    }

    #[test]
    fn the_default_branch_is_where_head_points() {
        let told = format!("ref: refs/heads/trunk\tHEAD\n{A}\tHEAD\n");
        let expected = resolved(A, None, "refs/heads/trunk");
        assert_eq!(default_branch(&told), Some(expected));
        assert_eq!(default_branch(&format!("{A}\tHEAD\n")), None);
        assert_eq!(default_branch(""), None);
    }
}
