use super::GitError;

/// What stands for a part of an address that nobody may see.
const MASK: &str = "xxxxx";

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http://`.
    Http,
    /// `https://`.
    Https,
    /// `ssh://`, or `user@host:path`.
    Ssh,
    /// `git://`.
    Git,
}

impl Scheme {
    fn of(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            "ssh" => Some(Self::Ssh),
            "git" => Some(Self::Git),
            _ => None,
        }
    }

    /// Whether it speaks HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// The address of a repository, as git takes it. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    scheme: Scheme,
    /// All of it, but query and fragment.
    url: String,
    /// What stands before the host, as written.
    user: Option<String>,
    /// With the port.
    host: String,
    /// Without escapes.
    path: String,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.redacted()).finish()
    }
}

/// An address, with what stands behind it.
pub(super) struct Parts<'a> {
    pub(super) remote: Remote,
    pub(super) query: &'a str,
    pub(super) fragment: &'a str,
}

impl Remote {
    /// Parses an address without query and fragment; one without a scheme is `https://`.
    pub fn parse(text: &str) -> Result<Self, GitError> {
        let whole;
        let parts = match parse(text) {
            Some(parts) => parts,
            None if !text.contains("://") => {
                whole = format!("https://{text}");
                parse(&whole).expect("https is known")
            }
            None => Err(GitError::new(format!(
                "no protocol of git repositories: {:?}",
                text.split("://").next().unwrap_or_default()
            ))),
        }?;
        Ok(parts.remote)
    }

    /// Returns how it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the host, with its port if there is one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the path, without escapes.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the address as it was given. It may hold a password: not for people.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the address for people: without user and password of HTTP, and without any password.
    pub fn redacted(&self) -> String {
        let shown = self.user.as_ref().map(|user| match user.split_once(':') {
            Some(_) => format!("{MASK}:{MASK}"),
            None if self.scheme.is_http() => MASK.to_owned(),
            None => user.clone(),
        });
        self.with_user(shown.as_deref())
    }

    /// Returns the address without user and password.
    pub fn without_user(&self) -> String {
        self.with_user(None)
    }

    /// Returns the address without a password.
    pub fn without_password(&self) -> String {
        let user = self.user.as_ref();
        let user = user.map(|user| user.split(':').next().unwrap_or_default());
        self.with_user(user)
    }

    /// Returns user and password, without escapes.
    pub fn credentials(&self) -> Option<(String, String)> {
        let user = self.user.as_ref()?;
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        Some((decode(user).ok()?, decode(password).ok()?))
    }

    fn with_user(&self, user: Option<&str>) -> String {
        let Some(own) = &self.user else {
            return self.url.clone();
        };
        let replaced = user.map_or(String::new(), |user| format!("{user}@"));
        self.url.replacen(&format!("{own}@"), &replaced, 1)
    }
}

/// Splits an address; `None` if it is none of a repository.
pub(super) fn parse(text: &str) -> Option<Result<Parts<'_>, GitError>> {
    let Some((scheme, rest)) = split_scheme(text) else {
        return parse_scp_like(text).map(Ok);
    };
    let scheme = Scheme::of(scheme)?;
    Some(parse_url(text, scheme, rest))
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_word = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word.then_some((scheme, rest))
}

fn parse_url<'a>(text: &'a str, scheme: Scheme, rest: &'a str) -> Result<Parts<'a>, GitError> {
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, authority),
    };
    let wrong = |what: &str| GitError::new(format!("git URL with {what}"));
    if rest.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(wrong("a space or a control character"));
    }
    check_host(host)?;
    let scheme_bytes = text.find("://").unwrap_or_default();
    let url = format!("{}://{rest}", text[..scheme_bytes].to_ascii_lowercase());
    Ok(Parts {
        remote: Remote {
            scheme,
            url,
            user,
            host: host.to_owned(),
            path: decode(path)?,
        },
        query,
        fragment,
    })
}

fn check_host(host: &str) -> Result<(), GitError> {
    let (name, port) = match host.rsplit_once(':') {
        // The colons of `[::1]` begin no port.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(GitError::new(format!("git URL with the host {name:?}")));
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(GitError::new(format!("git URL with the port {port:?}")));
    }
    Ok(())
}

/// Parses `user@host:path`.
fn parse_scp_like(text: &str) -> Option<Parts<'_>> {
    let is_word = |text: &str, more: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, rest_of) = rest.split_once('@')?;
    let (host, path) = rest_of.split_once(':')?;
    if !is_word(user, "-_") || !is_word(host, "-.") || host.starts_with('-') {
        return None;
    }
    Some(Parts {
        remote: Remote {
            scheme: Scheme::Ssh,
            url: rest.to_owned(),
            user: Some(user.to_owned()),
            host: host.to_owned(),
            path: path.to_owned(),
        },
        query,
        fragment,
    })
}

/// Replaces `%41` by what it stands for.
pub(super) fn decode(text: &str) -> Result<String, GitError> {
    let wrong = || GitError::new("git URL with an escape that stands for nothing");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || (rest.next()? as char).to_digit(16);
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> Remote {
        Remote::parse(text).unwrap()
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (text, scheme, host, path, url) in [
            (
                "https://e.com/a.git",
                Scheme::Https,
                "e.com",
                "/a.git",
                "https://e.com/a.git",
            ),
            (
                "HTTP://e.com:80/a%20b",
                Scheme::Http,
                "e.com:80",
                "/a b",
                "http://e.com:80/a%20b",
            ),
            (
                "ssh://git@e.com:22/a",
                Scheme::Ssh,
                "e.com:22",
                "/a",
                "ssh://git@e.com:22/a",
            ),
            (
                "git://[::1]:9418/a",
                Scheme::Git,
                "[::1]:9418",
                "/a",
                "git://[::1]:9418/a",
            ),
            (
                "git@e.com:a/b",
                Scheme::Ssh,
                "e.com",
                "a/b",
                "git@e.com:a/b",
            ),
            (
                "github.com/a/b",
                Scheme::Https,
                "github.com",
                "/a/b",
                "https://github.com/a/b",
            ),
        ] {
            let remote = remote(text);
            assert_eq!(
                (remote.scheme(), remote.host(), remote.path(), remote.url()),
                (scheme, host, path, url),
                "{text}"
            );
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, redacted, bare) in [
            (
                "https://u:p@e.com/a",
                "https://xxxxx:xxxxx@e.com/a",
                "https://e.com/a",
            ),
            (
                "https://token@e.com/a",
                "https://xxxxx@e.com/a",
                "https://e.com/a",
            ),
            ("ssh://git@e.com/a", "ssh://git@e.com/a", "ssh://e.com/a"),
            (
                "ssh://u:p@e.com/a",
                "ssh://xxxxx:xxxxx@e.com/a",
                "ssh://e.com/a",
            ),
            ("git@e.com:a", "git@e.com:a", "e.com:a"),
        ] {
            let remote = remote(text);
            assert_eq!(remote.redacted(), redacted);
            assert_eq!(remote.without_user(), bare);
            assert!(!format!("{remote:?}").contains(":p@"));
        }
        let escaped = remote("https://u%40x:a%3Ab@e.com/");
        assert_eq!(escaped.credentials(), Some(("u@x".into(), "a:b".into())));
    }

    #[test]
    fn hostile_addresses_are_refused() {
        for text in [
            "https:///a.git",
            "ssh://-oProxyCommand=x/a",
            "https://e.com:x/a",
            "https://e.com/a b",
            "https://e.com/a\nb",
            "https://e.com/%zz",
            "https://e.com/%ff",
            "ftp://e.com/a",
            "file:///etc",
            "ext::sh -c x",
        ] {
            assert!(Remote::parse(text).is_err(), "{text}");
        }
    }
}
