use super::remote::{self, Parts, Scheme, decode};
use super::source::shown;
use super::{GitError, Remote, is_commit};

const TAGS: &str = "refs/tags/";
const BRANCHES: &str = "refs/heads/";

/// What times the files of a checkout get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mtime {
    /// That of the checkout.
    #[default]
    Checkout,
    /// That of the commit.
    Commit,
}

/// A repository as users name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitRef {
    /// Where it is.
    pub remote: Remote,
    /// A commit, a tag or a branch; empty for the default branch.
    pub reference: String,
    /// A directory of it, as written; empty for all.
    pub subdir: String,
    /// The commit that the reference must lead to, or how it begins; empty for any.
    pub checksum: String,
    /// Whether `.git` is kept, if that is said.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules come along, if that is said.
    pub submodules: Option<bool>,
    /// What times files get.
    pub mtime: Mtime,
    /// Whether the commit of `checksum` is fetched without a look at where the reference leads.
    pub fetch_by_commit: bool,
    /// Whether it is written as a path could be, too: `github.com/…`. Only a build context may be.
    pub looks_local: bool,
}

impl GitRef {
    /// Parses a repository; `None` if the text is something else: a path, or a file to download.
    ///
    /// # Errors
    /// What is wrong with its options.
    pub fn parse(text: &str) -> Option<Result<Self, GitError>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let looks_local = text.starts_with("github.com/");
        let whole = if looks_local {
            format!("https://{text}")
        } else {
            text.to_owned()
        };
        // What can't be parsed is no repository.
        let parts = remote::parse(&whole)?.ok()?;
        let is_file = parts.remote.scheme().is_http() && !has_git_suffix(parts.remote.path());
        if is_file && !looks_local {
            return None;
        }
        Some(Self::of_parts(&parts, looks_local))
    }

    /// Whether the connection to it is not encrypted.
    pub fn is_plain(&self) -> bool {
        matches!(self.remote.scheme(), Scheme::Http | Scheme::Git)
    }

    /// Returns the text for people, without passwords.
    pub fn redacted(&self) -> String {
        shown(&self.remote.redacted(), &self.reference, &self.subdir)
    }

    fn of_parts(parts: &Parts<'_>, looks_local: bool) -> Result<Self, GitError> {
        // A source's identifier has the path without escapes, and the reference behind a `#`.
        if parts.remote.path().contains('#') {
            return Err(GitError::new("git URL whose path has a `#`"));
        }
        let fragment = decode(parts.fragment)?;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let mut this = Self {
            remote: parts.remote.clone(),
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
            checksum: String::new(),
            keep_git_dir: None,
            submodules: None,
            mtime: Mtime::default(),
            fetch_by_commit: false,
            looks_local,
        };
        this.read_query(parts.query)?;
        check_reference(&this.reference)?;
        check_checksum(&this.checksum)?;
        Ok(this)
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitError> {
        let (mut tag, mut branch) = (None, None);
        for (key, value) in pairs(query)? {
            let text = || match value.as_str() {
                "" => Err(GitError::new(format!("query {key:?} has no value"))),
                value => Ok(value.to_owned()),
            };
            let flag = || match value.as_str() {
                "" => Ok(true),
                value => parse_bool(value)
                    .ok_or_else(|| GitError::new(format!("invalid {key} value: {value:?}"))),
            };
            match key.as_str() {
                "ref" => self.set_reference(text()?)?,
                "tag" => tag = Some(qualified(TAGS, &text()?)),
                "branch" => branch = Some(qualified(BRANCHES, &text()?)),
                "subdir" => {
                    let subdir = text()?;
                    agree("subdir", &self.subdir, &subdir)?;
                    self.subdir = subdir;
                }
                "checksum" | "commit" => {
                    let checksum = text()?;
                    agree("checksum", &self.checksum, &checksum)?;
                    self.checksum = checksum;
                }
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = Some(flag()?),
                "fetch-by-commit" => self.fetch_by_commit = flag()?,
                "mtime" => {
                    self.mtime = match text()?.as_str() {
                        "checkout" => Mtime::Checkout,
                        "commit" => Mtime::Commit,
                        value => {
                            return Err(GitError::new(format!("invalid mtime value: {value:?}")));
                        }
                    }
                }
                _ => return Err(GitError::new(format!("unexpected query {key:?}"))),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err(GitError::new("branch conflicts with tag"));
        }
        if let Some(reference) = tag.or(branch) {
            self.set_reference(reference)?;
        }
        if self.fetch_by_commit && !is_commit(&self.checksum) {
            let message = "fetch-by-commit requires checksum to be a whole commit hash";
            return Err(GitError::new(message));
        }
        if self.reference.is_empty() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    fn set_reference(&mut self, reference: String) -> Result<(), GitError> {
        agree("ref", &self.reference, &reference)?;
        self.reference = reference;
        Ok(())
    }
}

/// Refuses what git would take for an option or a pattern of its own.
pub(super) fn check_reference(reference: &str) -> Result<(), GitError> {
    let is_bad = |byte: u8| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte);
    if reference.starts_with('-') || reference.bytes().any(is_bad) {
        return Err(GitError::new(format!("invalid git ref {reference:?}")));
    }
    Ok(())
}

/// Refuses what no commit begins with.
pub(super) fn check_checksum(checksum: &str) -> Result<(), GitError> {
    if checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let message = format!("invalid checksum {checksum} for Git URL, expected hex commit hash");
    Err(GitError::new(message))
}

/// Tells repositories from other files of web servers. The case matters, as in BuildKit.
fn has_git_suffix(path: &str) -> bool {
    path.strip_suffix(".git").is_some()
}

fn qualified(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) {
        name.to_owned()
    } else {
        format!("{prefix}{name}")
    }
}

fn agree(what: &str, known: &str, other: &str) -> Result<(), GitError> {
    if known.is_empty() || known == other {
        return Ok(());
    }
    let message = format!("{what} conflicts: {known:?} vs {other:?}");
    Err(GitError::new(message))
}

/// Returns the options of a query, each once.
fn pairs(query: &str) -> Result<Vec<(String, String)>, GitError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(&key.replace('+', " "))?;
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(GitError::new(format!("query {key:?} has multiple values")));
        }
        pairs.push((key, decode(&value.replace('+', " "))?));
    }
    Ok(pairs)
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(text: &str) -> GitRef {
        let parsed = GitRef::parse(text).unwrap_or_else(|| panic!("{text}: no repository"));
        parsed.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn repositories_are_told_from_files_and_paths() {
        for text in [
            "https://e.com/",
            "https://e.com/foo",
            "https://e.com/foo.git/",
            "https://e.com/foo.git.bar",
            "http://e.com/foo.git:#branch",
            "custom.xyz/a/b.git",
            "ftp://e.com/a.git",
            "docker-image://a",
            "./.git",
            ".git",
            "../a@b:c",
            "dir/a@b:c",
            "a@b",
            "host:path",
        ] {
            assert!(GitRef::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn all_forms_are_understood() {
        for (text, url, reference, subdir) in [
            ("https://e.com/foo.git", "https://e.com/foo.git", "", ""),
            (
                "https://e.com/foo.git#deadbeef",
                "https://e.com/foo.git",
                "deadbeef",
                "",
            ),
            (
                "https://e.com/foo.git#release/1.2",
                "https://e.com/foo.git",
                "release/1.2",
                "",
            ),
            (
                "https://e.com/foo.git#a/b:c/d",
                "https://e.com/foo.git",
                "a/b",
                "c/d",
            ),
            (
                "https://e.com/foo.git#:dir",
                "https://e.com/foo.git",
                "",
                "dir",
            ),
            (
                "https://u:p@e.com/foo.git",
                "https://u:p@e.com/foo.git",
                "",
                "",
            ),
            (
                "http://e.com/a.git?ref=v1&subdir=/s",
                "http://e.com/a.git",
                "v1",
                "/s",
            ),
            (
                "https://e.com/a.git?tag=v1",
                "https://e.com/a.git",
                "refs/tags/v1",
                "",
            ),
            (
                "https://e.com/a.git?tag=refs/tags/v1",
                "https://e.com/a.git",
                "refs/tags/v1",
                "",
            ),
            (
                "https://e.com/a.git?branch=x%2Fy",
                "https://e.com/a.git",
                "refs/heads/x/y",
                "",
            ),
            (
                "https://e.com/a.git?branch=m#refs/heads/m",
                "https://e.com/a.git",
                "refs/heads/m",
                "",
            ),
            (
                "https://e.com/a.git?checksum=ab12",
                "https://e.com/a.git",
                "ab12",
                "",
            ),
            (
                "https://e.com/a.git?ref=m&commit=ab12",
                "https://e.com/a.git",
                "m",
                "",
            ),
            ("git://e.com/foo", "git://e.com/foo", "", ""),
            ("ssh://git@e.com/foo#m", "ssh://git@e.com/foo", "m", ""),
            ("git@e.com:a/b", "git@e.com:a/b", "", ""),
            (
                "git@e.com:a/b.git?tag=v1#:d",
                "git@e.com:a/b.git",
                "refs/tags/v1",
                "d",
            ),
            ("github.com/a/b#m:d", "https://github.com/a/b", "m", "d"),
        ] {
            let parsed = parse(text);
            let told = (parsed.remote.url(), &*parsed.reference, &*parsed.subdir);
            assert_eq!(told, (url, reference, subdir), "{text}");
            assert_eq!(parsed.looks_local, text.starts_with("github.com/"));
        }
        assert!(parse("git://e.com/a").is_plain() && !parse("git@e.com:a").is_plain());
    }

    #[test]
    fn options_are_read() {
        let text = format!(
            "https://e.com/a.git?keep-git-dir=true&submodules=0&mtime=commit&checksum={COMMIT}&fetch-by-commit&ref=m"
        );
        let parsed = parse(&text);
        assert_eq!(parsed.keep_git_dir, Some(true));
        assert_eq!(parsed.submodules, Some(false));
        assert_eq!(parsed.mtime, Mtime::Commit);
        assert!(parsed.fetch_by_commit);
        assert_eq!((&*parsed.checksum, &*parsed.reference), (COMMIT, "m"));
        let plain = parse("https://e.com/a.git?keep-git-dir&mtime=checkout");
        assert_eq!((plain.keep_git_dir, plain.submodules), (Some(true), None));
        assert_eq!(plain.mtime, Mtime::Checkout);
    }

    #[test]
    fn paths_are_told_from_references() {
        let parsed = GitRef::parse("https://e.com/a%23b.git").expect("a repository");
        let error = parsed.unwrap_err().to_string();
        assert_eq!(error, "git URL whose path has a `#`");
    }

    #[test]
    fn wrong_options_are_named() {
        for (query, expected) in [
            ("?x=1", "unexpected query \"x\""),
            ("?ref=", "query \"ref\" has no value"),
            ("?ref", "query \"ref\" has no value"),
            ("?ref=a&ref=a", "query \"ref\" has multiple values"),
            ("?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("?tag=a#b", "ref conflicts: \"b\" vs \"refs/tags/a\""),
            (
                "?branch=a&ref=b",
                "ref conflicts: \"b\" vs \"refs/heads/a\"",
            ),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("?subdir=a#:b", "subdir conflicts: \"b\" vs \"a\""),
            ("?checksum=a&commit=b", "checksum conflicts: \"a\" vs \"b\""),
            ("?keep-git-dir=x", "invalid keep-git-dir value: \"x\""),
            ("?submodules=2", "invalid submodules value: \"2\""),
            ("?mtime=now", "invalid mtime value: \"now\""),
            ("?fetch-by-commit=x", "invalid fetch-by-commit value: \"x\""),
            (
                "?fetch-by-commit=1&checksum=ab",
                "fetch-by-commit requires checksum to be a whole commit hash",
            ),
            (
                "?checksum=ab/12",
                "invalid checksum ab/12 for Git URL, expected hex commit hash",
            ),
            ("#--upload-pack=x", "invalid git ref \"--upload-pack=x\""),
            ("#a*", "invalid git ref \"a*\""),
            ("#a%0Ab", "invalid git ref \"a\\nb\""),
            ("#%zz", "git URL with an escape that stands for nothing"),
        ] {
            let parsed = GitRef::parse(&format!("https://e.com/a.git{query}"));
            assert_eq!(
                parsed.unwrap().unwrap_err().to_string(),
                expected,
                "{query}"
            );
        }
    }
}
