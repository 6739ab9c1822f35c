/// Returns `path` without empty names, `.` and inner `..`, as Go's `path.Clean` does; an empty
/// path is `.`.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => match names.last() {
                Some(&last) if last != ".." => {
                    names.pop();
                }
                _ if rooted => {}
                _ => names.push(name),
            },
            name => names.push(name),
        }
    }
    match (rooted, names.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

/// Returns `path` cleaned as a path below `/`, out of which `..` does not lead: `/` or `/a/b`.
pub(crate) fn clean_rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, cleaned, rooted) in [
            ("", ".", "/"),
            ("/", "/", "/"),
            ("a//b/./c/", "a/b/c", "/a/b/c"),
            ("../a", "../a", "/a"),
            ("a/../../b", "../b", "/b"),
            ("/../a", "/a", "/a"),
            ("./.", ".", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
            assert_eq!(clean_rooted(path), rooted, "{path}");
        }
    }
}
