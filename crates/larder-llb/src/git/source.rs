use std::collections::BTreeMap;

use larder_oci::Digest;

use super::reference::{check_checksum, check_reference};
use super::{GitError, GitRef, Mtime, Remote, Scheme};
use crate::blob::BlobLocator;
use crate::pb;

/// The secrets that BuildKit's own definitions name.
const AUTH_HEADER: &str = "GIT_AUTH_HEADER";
const AUTH_TOKEN: &str = "GIT_AUTH_TOKEN";
/// What the full names of tags begin with.
const TAGS: &str = "refs/tags/";
/// The SSH agent that is used where none is named.
const SSH_ID: &str = "default";

/// What a source op says of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// Where it is.
    pub remote: Remote,
    /// A commit, a tag or a branch; empty for the default branch.
    pub reference: String,
    /// The directory that is wanted, as written; empty for all.
    pub subdir: String,
    /// Whether `.git` is part of the result.
    pub keep_git_dir: bool,
    /// The secret that is sent as the `Authorization` header; empty for none.
    pub auth_header_secret: String,
    /// The secret that is sent as a token; empty for none.
    pub auth_token_secret: String,
    /// The keys of hosts, in the form of `known_hosts`; `None` where the user's own are asked.
    pub known_hosts: Option<String>,
    /// The SSH agent.
    pub ssh_id: Option<String>,
    /// How the commit must begin; empty for any.
    pub checksum: String,
    /// Whether submodules stay empty.
    pub skip_submodules: bool,
    /// What times files get.
    pub mtime: Mtime,
    /// Whether `checksum` is fetched without a look at where the reference leads.
    pub fetch_by_commit: bool,
    /// The blob that has the commits, in place of the repository's server.
    pub bundle: Option<BlobLocator>,
    /// Whether the result is a bundle of the commit and its ancestors, in place of its files.
    pub checkout_bundle: bool,
    /// Who must have signed the commit or the tag.
    pub signature: Option<GitSignature>,
}

/// A signature that a commit, or a tag, must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSignature {
    /// The OpenPGP keys of who may have signed, in their armor.
    pub public_keys: String,
    /// Whether keys that have expired since do not count.
    pub reject_expired: bool,
    /// Whether the tag must be signed; a signed commit does not suffice.
    pub require_tag: bool,
    /// Whether the commit must be signed; a signed tag does not suffice.
    pub ignore_tag: bool,
}

impl GitSource {
    /// Returns the source for what a user named; `.git` is kept if either says so.
    pub fn new(named: &GitRef, keep_git_dir: bool) -> Self {
        let is_ssh = named.remote.scheme() == Scheme::Ssh;
        Self {
            remote: named.remote.clone(),
            reference: named.reference.clone(),
            subdir: named.subdir.clone(),
            keep_git_dir: keep_git_dir || named.keep_git_dir == Some(true),
            auth_header_secret: AUTH_HEADER.to_owned(),
            auth_token_secret: AUTH_TOKEN.to_owned(),
            known_hosts: None,
            ssh_id: is_ssh.then(|| SSH_ID.to_owned()),
            checksum: named.checksum.clone(),
            skip_submodules: named.submodules == Some(false),
            mtime: named.mtime,
            fetch_by_commit: named.fetch_by_commit,
            bundle: None,
            checkout_bundle: false,
            signature: None,
        }
    }

    /// Returns what it is for people, without passwords.
    pub fn redacted(&self) -> String {
        shown(&self.remote.redacted(), &self.reference, &self.subdir)
    }

    /// Returns the op. The identifier is the same for all protocols.
    pub fn to_op(&self) -> pb::SourceOp {
        let attrs = self.attrs().into_iter();
        pb::SourceOp {
            identifier: self.identifier(),
            attrs: attrs
                .map(|(name, value, _)| (format!("git.{name}"), value))
                .collect(),
        }
    }

    /// Returns the capabilities that who solves the op must have.
    pub fn caps(&self) -> Vec<String> {
        let attrs = self.attrs().into_iter();
        let caps =
            attrs.filter_map(|(_, _, cap)| (!cap.is_empty()).then(|| format!("source.git.{cap}")));
        std::iter::once("source.git".to_owned())
            .chain(caps)
            .collect()
    }

    /// Reads an op.
    ///
    /// # Errors
    /// What it asks for and can't get: a signature must not go unchecked.
    pub fn of_op(op: &pb::SourceOp) -> Result<Self, GitError> {
        let rest = op
            .identifier
            .strip_prefix("git://")
            .unwrap_or(&op.identifier);
        let (address, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        check_reference(reference)?;
        let text = |name: &str| op.attrs.get(&format!("git.{name}")).cloned();
        let flag = |name: &str| text(name).is_some_and(|value| value == "true");
        let given = |name: &str| text(name).filter(|text| !text.is_empty());
        refuse_unknown(&op.attrs)?;
        let has_signature = op.attrs.keys().any(|name| name.starts_with("git.sig."));
        let remote = Remote::parse(&text("fullurl").unwrap_or_else(|| address.to_owned()))?;
        let source = Self {
            remote,
            reference: reference.to_owned(),
            subdir: if is_whole(subdir) {
                String::new()
            } else {
                subdir.to_owned()
            },
            keep_git_dir: flag("keepgitdir"),
            auth_header_secret: text("authheadersecret").unwrap_or_default(),
            auth_token_secret: text("authtokensecret").unwrap_or_default(),
            known_hosts: given("knownsshhosts"),
            ssh_id: given("mountsshsock"),
            checksum: text("checksum").unwrap_or_default(),
            skip_submodules: flag("skipsubmodules"),
            mtime: match text("mtime").as_deref() {
                None | Some("" | "checkout") => Mtime::Checkout,
                Some("commit") => Mtime::Commit,
                Some(value) => {
                    return Err(GitError::new(format!("invalid mtime value: {value:?}")));
                }
            },
            fetch_by_commit: flag("fetchbycommit"),
            bundle: given("bundle").map(|text| bundle(&text, op)).transpose()?,
            checkout_bundle: flag("checkoutbundle"),
            signature: has_signature.then(|| GitSignature {
                public_keys: text("sig.pubkey").unwrap_or_default(),
                reject_expired: flag("sig.rejectexpired"),
                require_tag: flag("sig.requiresignedtag"),
                ignore_tag: flag("sig.ignoresignedtag"),
            }),
        };
        check_checksum(&source.checksum)?;
        if source.fetch_by_commit && !is_commit(&source.checksum) {
            return Err(GitError::new(
                "fetch-by-commit requires checksum to be a whole commit hash",
            ));
        }
        source.check_bundles()?;
        Ok(source)
    }

    fn check_bundles(&self) -> Result<(), GitError> {
        if self.checkout_bundle {
            let problem = "git.checkoutbundle is incompatible with";
            if self.keep_git_dir {
                return Err(GitError::new(format!("{problem} git.keepgitdir")));
            }
            if !self.subdir.is_empty() {
                return Err(GitError::new(format!("{problem} git.subdir")));
            }
        }
        if self.bundle.is_none() {
            return Ok(());
        }
        if self.checksum.is_empty() {
            let problem = "git.bundle requires git.checksum to be set";
            return Err(GitError::new(problem.to_owned()));
        }
        if self.reference.is_empty() && !is_commit(&self.checksum) {
            let problem =
                "git.bundle without a reference requires git.checksum to be a whole commit hash";
            return Err(GitError::new(problem.to_owned()));
        }
        Ok(())
    }

    /// Returns what the commit is called in a bundle of it.
    pub fn bundle_reference(&self) -> String {
        let reference = &*self.reference;
        if reference.is_empty() || is_commit(reference) {
            return "refs/heads/main".to_owned();
        }
        if reference.starts_with(TAGS) {
            return reference.to_owned();
        }
        let name = reference.strip_prefix("refs/").unwrap_or(reference);
        format!("refs/heads/{}", name.strip_prefix("heads/").unwrap_or(name))
    }

    /// Returns whether a tag object is part of the result, and not only what it names.
    pub fn has_tag(&self) -> bool {
        self.keep_git_dir || (self.checkout_bundle && self.reference.starts_with(TAGS))
    }

    /// Returns the digest that identifies in cache keys what `commit` holds. `reference` is what
    /// led to it, in full: it counts where `.git` is kept, which names it.
    ///
    /// | enters | does not enter, because |
    /// | --- | --- |
    /// | commit, subdirectory, whether `.git` is kept and by what name, whether submodules come along, times of the commit, whether it is a bundle and what the commit is called there | the address and how it is reached: a commit says what its files are; secrets, hosts, agents, the bundle that it is in; the checksum, which is checked |
    pub fn cache_digest(&self, commit: &str, reference: &str) -> Digest {
        Digest::sha256(format!(
            "buildkit.source.v0:{}",
            self.key(commit, reference)
        ))
    }

    fn key(&self, commit: &str, reference: &str) -> String {
        let mut key = commit.to_owned();
        if self.keep_git_dir {
            key.push_str(".git");
            if !reference.is_empty() {
                key.push('#');
                key.push_str(reference);
            }
        }
        if !self.subdir.is_empty() {
            key.push(':');
            key.push_str(&self.subdir);
        }
        if self.skip_submodules {
            key.push_str("(skip-submodules)");
        }
        if self.mtime == Mtime::Commit {
            key.push_str("(mtime-commit)");
        }
        if self.checkout_bundle {
            key.push_str("(checkout-bundle)");
            key.push_str(&self.bundle_reference());
        }
        key
    }

    fn identifier(&self) -> String {
        let path = absolute(self.remote.path());
        let address = format!("git://{}{path}", self.remote.host());
        shown(&address, &self.reference, &self.subdir)
    }

    /// Returns the attributes with their values, and the capability that each asks for.
    fn attrs(&self) -> Vec<(&'static str, String, &'static str)> {
        let flag = |set: bool| {
            if set {
                "true".to_owned()
            } else {
                String::new()
            }
        };
        let is_ssh = self.remote.scheme() == Scheme::Ssh;
        let known_hosts = self.known_hosts.clone().unwrap_or_default();
        let mtime = match self.mtime {
            Mtime::Checkout => String::new(),
            Mtime::Commit => "commit".to_owned(),
        };
        let mut attrs = vec![
            ("keepgitdir", flag(self.keep_git_dir), "keepgitdir"),
            ("fullurl", self.remote.url().to_owned(), "fullurl"),
            ("authtokensecret", self.auth_token_secret.clone(), ""),
            ("authheadersecret", self.auth_header_secret.clone(), ""),
            ("knownsshhosts", known_hosts, "knownsshhosts"),
            ("checksum", self.checksum.clone(), "checksum"),
            (
                "skipsubmodules",
                flag(self.skip_submodules),
                "skipsubmodules",
            ),
            ("mtime", mtime, "mtime"),
            ("fetchbycommit", flag(self.fetch_by_commit), "fetchbycommit"),
        ];
        if let Some(signature) = &self.signature {
            let keys = signature.public_keys.clone();
            attrs.extend([
                ("sig.pubkey", keys, "signatureverify"),
                ("sig.rejectexpired", flag(signature.reject_expired), ""),
                ("sig.requiresignedtag", flag(signature.require_tag), ""),
                ("sig.ignoresignedtag", flag(signature.ignore_tag), ""),
            ]);
        }
        if let Some(bundle) = &self.bundle {
            attrs.push(("bundle", bundle.to_string(), "bundle"));
        }
        attrs.push((
            "checkoutbundle",
            flag(self.checkout_bundle),
            "checkoutbundle",
        ));
        if is_ssh {
            let id = self.ssh_id.clone().unwrap_or_default();
            attrs.push(("mountsshsock", id, "mountsshsock"));
        }
        attrs.retain(|(_, value, _)| !value.is_empty());
        attrs
    }
}

/// Returns `ADDRESS#REFERENCE:SUBDIR`, as far as these are there.
pub(super) fn shown(address: &str, reference: &str, subdir: &str) -> String {
    match (reference, subdir) {
        ("", "") => address.to_owned(),
        (reference, "") => format!("{address}#{reference}"),
        (reference, subdir) => format!("{address}#{reference}:{subdir}"),
    }
}

/// Whether a reference is a whole commit hash: it leads to the same commit for ever.
pub fn is_commit(reference: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    matches!(reference.len(), 40 | 64) && reference.bytes().all(is_hex)
}

/// Attributes that are not known may ask for a check: nothing is fetched without it.
fn refuse_unknown(attrs: &BTreeMap<String, String>) -> Result<(), GitError> {
    const KNOWN: [&str; 17] = [
        "git.sig.pubkey",
        "git.sig.rejectexpired",
        "git.sig.requiresignedtag",
        "git.sig.ignoresignedtag",
        "git.bundle",
        "git.checkoutbundle",
        "git.keepgitdir",
        "git.fullurl",
        "git.authtokensecret",
        "git.authheadersecret",
        "git.knownsshhosts",
        "git.mountsshsock",
        "git.checksum",
        "git.skipsubmodules",
        "git.mtime",
        "git.fetchbycommit",
        "git.advice",
    ];
    let mut names = attrs.keys();
    match names.find(|name| name.starts_with("git.") && !KNOWN.contains(&name.as_str())) {
        Some(name) => Err(GitError::new(format!(
            "`{name}` of a git source is not available in this version of larder"
        ))),
        None => Ok(()),
    }
}

/// Reads where a bundle is. A layout is named by the op, else by the locator.
fn bundle(text: &str, op: &pb::SourceOp) -> Result<BlobLocator, GitError> {
    let Some((scheme, _)) = text.split_once("://") else {
        let problem = format!("failed to parse git.bundle locator {text:?}: missing scheme");
        return Err(GitError::new(problem));
    };
    let Some(locator) = BlobLocator::parse(text) else {
        return Err(GitError::new(format!(
            "git.bundle locator scheme {scheme:?} is not supported; \
             expected \"docker-image+blob\" or \"oci-layout+blob\""
        )));
    };
    let mut locator = locator.map_err(|problem| {
        GitError::new(format!(
            "failed to parse git.bundle locator {text:?}: {problem}"
        ))
    })?;
    let algorithm = locator.digest.algorithm();
    if algorithm != "sha256" {
        return Err(GitError::new(format!(
            "git.bundle locator {text:?}: digest algorithm {algorithm:?} not supported, expected \"sha256\""
        )));
    }
    let store = op.attrs.get("oci.store").filter(|name| !name.is_empty());
    if let (Some(layout), Some(store)) = (&mut locator.layout, store) {
        layout.clone_from(store);
    }
    Ok(locator)
}

/// Whether a subdirectory is all of the repository.
fn is_whole(subdir: &str) -> bool {
    subdir.split('/').all(|part| matches!(part, "" | "."))
}

/// Go's `path.Join("/", path)`.
fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    const BUNDLE: &str = "docker-image+blob://example.com/a@sha256:\
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const SHA512: &str = "docker-image+blob://example.com/a@sha512:\
        cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
        47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    fn source(text: &str) -> GitSource {
        GitSource::new(&GitRef::parse(text).unwrap().unwrap(), false)
    }

    /// The attributes that every source has.
    const COMMON: [(&str, &str); 2] = [
        ("git.authheadersecret", "GIT_AUTH_HEADER"),
        ("git.authtokensecret", "GIT_AUTH_TOKEN"),
    ];

    fn check(text: &str, identifier: &str, attrs: &[(&str, &str)], caps: &[&str]) {
        let source = source(text);
        let op = source.to_op();
        assert_eq!(op.identifier, identifier, "{text}");
        let expected: BTreeMap<String, String> = COMMON
            .iter()
            .chain(attrs)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(op.attrs, expected, "{text}");
        let mut told = source.caps();
        told.sort();
        let mut caps: Vec<String> = caps.iter().map(|cap| format!("source.git{cap}")).collect();
        caps.sort();
        assert_eq!(told, caps, "{text}");
        assert_eq!(GitSource::of_op(&op).unwrap(), source, "{text}");
    }

    #[test]
    fn ops_are_those_of_buildkit() {
        check(
            "https://github.com/moby/buildkit.git#v0.10:docs",
            "git://github.com/moby/buildkit.git#v0.10:docs",
            &[("git.fullurl", "https://github.com/moby/buildkit.git")],
            &["", ".fullurl"],
        );
        check(
            "git@github.com:moby/buildkit.git",
            "git://github.com/moby/buildkit.git",
            &[
                ("git.fullurl", "git@github.com:moby/buildkit.git"),
                ("git.mountsshsock", "default"),
            ],
            &["", ".fullurl", ".mountsshsock"],
        );
        check(
            "github.com/moby/buildkit#:sub",
            "git://github.com/moby/buildkit#:sub",
            &[("git.fullurl", "https://github.com/moby/buildkit")],
            &["", ".fullurl"],
        );
        let all = format!(
            "https://e.com/a.git?ref=m&checksum={COMMIT}&submodules=false&mtime=commit&fetch-by-commit=1&keep-git-dir"
        );
        check(
            &all,
            "git://e.com/a.git#m",
            &[
                ("git.checksum", COMMIT),
                ("git.fetchbycommit", "true"),
                ("git.fullurl", "https://e.com/a.git"),
                ("git.keepgitdir", "true"),
                ("git.mtime", "commit"),
                ("git.skipsubmodules", "true"),
            ],
            &[
                "",
                ".checksum",
                ".fetchbycommit",
                ".fullurl",
                ".keepgitdir",
                ".mtime",
                ".skipsubmodules",
            ],
        );
    }

    #[test]
    fn ops_of_others_are_read() {
        let op = |identifier: &str, attrs: &[(&str, &str)]| pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let plain = GitSource::of_op(&op("git://e.com/a.git#v1:/", &[])).unwrap();
        assert_eq!(plain.remote.url(), "https://e.com/a.git");
        assert_eq!((&*plain.reference, &*plain.subdir), ("v1", ""));
        for (attr, value, expected) in [
            ("git.sig.policy", "x", "`git.sig.policy` of a git source"),
            (
                "git.bundle",
                "x",
                r#"git.bundle locator "x": missing scheme"#,
            ),
            (
                "git.bundle",
                "https://e.com/x",
                r#"locator scheme "https" is not supported"#,
            ),
            ("git.bundle", "docker-image+blob://a", "names no blob"),
            (
                "git.bundle",
                SHA512,
                r#"digest algorithm "sha512" not supported"#,
            ),
            ("git.bundle", BUNDLE, "git.bundle requires git.checksum"),
            ("git.checksum", "xyz", "invalid checksum xyz"),
            ("git.mtime", "x", "invalid mtime"),
            ("git.fullurl", "file:///etc", "no protocol"),
            ("git.fetchbycommit", "true", "requires checksum"),
        ] {
            let error = GitSource::of_op(&op("git://e.com/a", &[(attr, value)]));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{attr}: {error}");
        }
        let error = GitSource::of_op(&op("git://e.com/a#--x", &[])).unwrap_err();
        assert_eq!(error.to_string(), "invalid git ref \"--x\"");
    }

    #[test]
    fn signatures_are_asked_for() {
        let plain = source("https://e.com/a.git#v1");
        let mut op = plain.to_op();
        let key = ("git.sig.pubkey".to_owned(), "k".to_owned());
        op.attrs.extend([key]);
        for name in ["rejectexpired", "requiresignedtag", "ignoresignedtag"] {
            let attr = (format!("git.sig.{name}"), "true".to_owned());
            op.attrs.extend([attr]);
        }
        let signed = GitSource::of_op(&op).unwrap();
        let expected = GitSignature {
            public_keys: "k".to_owned(),
            reject_expired: true,
            require_tag: true,
            ignore_tag: true,
        };
        assert_eq!(signed.signature, Some(expected));
        assert_eq!(signed.to_op(), op);
        let cap = "source.git.signatureverify".to_owned();
        assert!(signed.caps().contains(&cap));
        // Who has signed changes nothing of the files.
        assert_eq!(signed.key("c", "r"), plain.key("c", "r"));
        let only = [("git.sig.rejectexpired".to_owned(), "false".to_owned())];
        op.attrs = only.into();
        let asked = GitSource::of_op(&op).unwrap().signature;
        assert_eq!(asked, Some(GitSignature::default()));
    }

    #[test]
    fn bundles_are_read_and_made() {
        let parse = |reference: &str, attrs: &[(&str, &str)]| {
            let attr = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            GitSource::of_op(&pb::SourceOp {
                identifier: format!("git://e.com/a.git{reference}"),
                attrs: attrs.iter().map(attr).collect(),
            })
        };
        let from = [("git.bundle", BUNDLE), ("git.checksum", COMMIT)];
        let source = parse("#v1", &from).unwrap();
        assert_eq!(source.bundle.as_ref().unwrap().to_string(), BUNDLE);
        assert_eq!(GitSource::of_op(&source.to_op()).unwrap(), source);
        assert!(source.caps().contains(&"source.git.bundle".to_owned()));
        // Where the commits are from changes nothing.
        let of_server = parse("#v1", &[("git.checksum", COMMIT)]).unwrap();
        assert_eq!(source.key("c", "r"), of_server.key("c", "r"));

        let layout = BUNDLE.replace("docker-image", "oci-layout");
        let within = |store: &str| {
            let attrs = [
                ("git.bundle", &*layout),
                ("git.checksum", COMMIT),
                ("oci.store", store),
            ];
            parse("", &attrs).unwrap().bundle.unwrap().layout
        };
        assert_eq!(within("").as_deref(), Some("example.com/a"));
        assert_eq!(within("here").as_deref(), Some("here"));

        let short = [("git.bundle", BUNDLE), ("git.checksum", "abc")];
        assert!(parse("#v1", &short).is_ok());
        for (reference, attrs, expected) in [
            (
                "",
                &short[..],
                "requires git.checksum to be a whole commit hash",
            ),
            (
                "#:sub",
                &[("git.checkoutbundle", "true")],
                "git.checkoutbundle is incompatible with git.subdir",
            ),
            (
                "",
                &[("git.checkoutbundle", "true"), ("git.keepgitdir", "true")],
                "git.checkoutbundle is incompatible with git.keepgitdir",
            ),
        ] {
            let error = parse(reference, attrs).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }

        for (reference, expected) in [
            ("", "refs/heads/main"),
            (&*format!("#{COMMIT}"), "refs/heads/main"),
            ("#v1", "refs/heads/v1"),
            ("#heads/x", "refs/heads/x"),
            ("#refs/heads/x", "refs/heads/x"),
            ("#refs/tags/v1", "refs/tags/v1"),
        ] {
            let made = parse(reference, &[("git.checkoutbundle", "true")]).unwrap();
            assert_eq!(made.bundle_reference(), expected, "{reference}");
            assert_eq!(made.has_tag(), reference == "#refs/tags/v1");
            assert_eq!(made.key("c", ""), format!("c(checkout-bundle){expected}"));
        }
    }

    #[test]
    fn keys_are_those_of_buildkit() {
        let key =
            |query: &str| source(&format!("https://e.com/a.git{query}")).key("c", "refs/heads/m");
        for (query, expected) in [
            ("", "c"),
            ("#m", "c"),
            ("#m:sub", "c:sub"),
            ("?keep-git-dir=1", "c.git#refs/heads/m"),
            ("?keep-git-dir=1&subdir=/s", "c.git#refs/heads/m:/s"),
            ("?submodules=0", "c(skip-submodules)"),
            ("?mtime=checkout", "c"),
            ("?mtime=commit", "c(mtime-commit)"),
        ] {
            assert_eq!(key(query), expected, "{query}");
        }
        let digest = source("https://e.com/a.git").cache_digest(COMMIT, "");
        assert_eq!(
            digest,
            Digest::sha256(format!("buildkit.source.v0:{COMMIT}"))
        );
    }

    #[test]
    fn commits_are_told_from_names() {
        assert!(is_commit(COMMIT) && is_commit(&"a".repeat(64)));
        for name in [
            "",
            "main",
            &COMMIT[1..],
            &COMMIT.to_uppercase(),
            &"g".repeat(40),
        ] {
            assert!(!is_commit(name), "{name}");
        }
    }
}
