//! Paths in ops.

/// Returns whether `*`, `?` or `[` stands in `path` without a backslash before it.
pub fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Go's `path.Join("/", path)`.
pub(super) fn absolute(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Go's `path.Base`.
pub(super) fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// Returns the distinct paths that lie below none of the others, sorted.
pub(super) fn without_nested(paths: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = paths.to_vec();
    kept.sort();
    kept.dedup();
    let all = kept.clone();
    let covers = |other: &str, path: &str| {
        let below = path.strip_prefix(other.trim_end_matches('/'));
        other != path && below.is_some_and(|rest| rest.starts_with('/'))
    };
    kept.retain(|path| !all.iter().any(|other| covers(other, path)));
    kept
}
