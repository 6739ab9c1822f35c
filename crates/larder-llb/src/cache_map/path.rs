//! Paths in ops.

use std::collections::BTreeSet;

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
    let all: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let is_nested = |path: &str| {
        path.match_indices('/').any(|(end, _)| {
            let dir = &path[..=end];
            all.contains(&path[..end]) || (dir != path && all.contains(dir))
        })
    };
    let kept = all.iter().filter(|path| !is_nested(path));
    kept.map(|path| (*path).to_owned()).collect()
}
