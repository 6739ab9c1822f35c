//! Which sources of ADD are not paths.

/// Returns whether a source is a file to download. URLs that end in `.git` are repositories.
pub(super) fn is_http(source: &str) -> bool {
    has_http_scheme(source) && !is_git(source)
}

/// Returns whether a source is a git repository: `git://`, `ssh://`, `git@host:path`, or an
/// http(s) URL whose path ends in `.git`.
pub(super) fn is_git(source: &str) -> bool {
    let name = source.split(['#', '?']).next().unwrap_or_default();
    if has_http_scheme(source) {
        return name.strip_suffix(".git").is_some();
    }
    source.starts_with("git://") || source.starts_with("ssh://") || is_scp_like(name)
}

fn has_http_scheme(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Checks `user@host:path`.
fn is_scp_like(source: &str) -> bool {
    let word = |text: &str, more: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let Some((user, rest)) = source.split_once('@') else {
        return false;
    };
    let host = rest.split_once(':').map(|(host, _)| host);
    word(user, "-_") && host.is_some_and(|host| word(host, ".-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (source, git, http) in [
            ("https://example.com/a.tar", false, true),
            ("https://example.com/a.git", true, false),
            ("https://example.com/a.git#main:sub", true, false),
            ("http://example.com/a.git?ref=x", true, false),
            ("git@example.com:a/b", true, false),
            ("ssh://git@example.com/a", true, false),
            ("git://example.com/a", true, false),
            ("a@b", false, false),
            ("a.git", false, false),
            ("github.com/a/b", false, false),
            ("dir/a@b:c", false, false),
        ] {
            assert_eq!((is_git(source), is_http(source)), (git, http), "{source}");
        }
    }
}
