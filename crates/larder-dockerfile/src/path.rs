//! Lexical paths inside an image or a context: slashes only, `..` never leaves the root.

/// Returns the absolute, shortest form of `path` below `parent`: no empty, `.` or `..` parts.
pub(crate) fn absolute(parent: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let parent = if path.starts_with('/') { "" } else { parent };
    for part in parent.split('/').chain(path.split('/')) {
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

/// Like [`absolute`], for a destination: a trailing `/` or `/.`, which says that it is a
/// directory, is kept. The empty path and `.` are the parent, as a directory.
pub(crate) fn destination(parent: &str, path: &str) -> String {
    let path = if path.is_empty() || path == "." {
        "./"
    } else {
        path
    };
    let clean = absolute(parent, path);
    let separator = if clean == "/" { "" } else { "/" };
    if path.ends_with('/') {
        clean + separator
    } else if path.ends_with("/.") {
        clean + separator + "."
    } else {
        clean
    }
}

/// Returns the shortest form of `path`, relative if it was (Go's `path.Clean`).
pub(crate) fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return absolute("/", path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    }
}

/// Returns the part after the last slash; `/` for the root.
pub(crate) fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None if path.is_empty() => ".",
        Some("") | None => "/",
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_stay_below_the_root() {
        for (parent, path, expected) in [
            ("/", "a", "/a"),
            ("/w", "a/../b", "/w/b"),
            ("/w", "/a", "/a"),
            ("/w", "../../../x", "/x"),
            ("", "", "/"),
            ("/w/", ".", "/w"),
        ] {
            assert_eq!(absolute(parent, path), expected, "{parent} {path}");
        }
    }

    #[test]
    fn destinations_keep_what_marks_a_directory() {
        for (parent, path, expected) in [
            ("/w", ".", "/w/"),
            ("/w", "./", "/w/"),
            ("/", ".", "/"),
            ("/w", "x/", "/w/x/"),
            ("/w", "/x/.", "/x/."),
            ("/", "/.", "/."),
            ("/w", "x", "/w/x"),
            ("/w", "", "/w/"),
        ] {
            assert_eq!(destination(parent, path), expected, "{parent} {path}");
        }
    }

    #[test]
    fn clean_keeps_relative_paths_relative() {
        for (path, expected) in [
            ("", "."),
            ("./a/", "a"),
            ("a/../..", ".."),
            ("../a", "../a"),
            ("/a/..", "/"),
            ("a//b", "a/b"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn base_names_are_the_last_part() {
        for (path, expected) in [
            ("/a/b", "b"),
            ("a/", "a"),
            ("/", "/"),
            ("", "."),
            ("x", "x"),
        ] {
            assert_eq!(base_name(path), expected, "{path}");
        }
    }
}
