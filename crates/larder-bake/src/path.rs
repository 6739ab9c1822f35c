//! Paths as text.

/// Returns the shortest path that means the same, as Go's `path.Clean`: no `.`, no double slash,
/// `..` only at the beginning. Symbolic links are not looked at.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => match components.last() {
                Some(&last) if last != ".." => drop(components.pop()),
                _ if is_absolute => {}
                _ => components.push(".."),
            },
            _ => components.push(component),
        }
    }
    match (is_absolute, components.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}

/// Whether a context or a bake file is fetched from somewhere: a Git repository or a URL.
pub fn is_remote(path: &str) -> bool {
    let schemes = [
        "http://",
        "https://",
        "git://",
        "ssh://",
        "git@",
        "github.com/",
    ];
    schemes.iter().any(|scheme| path.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("./db", "db"),
            ("a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
            ("..", ".."),
            ("a/../../b", "../b"),
            ("/..", "/"),
            ("/a/../..//b", "/b"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
