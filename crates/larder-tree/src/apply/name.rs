use std::path::{Component, Path, PathBuf};

use crate::{Error, ErrorKind, Result};

/// Returns an archive's name relative to the root, without `.`, `..` and doubled slashes; empty
/// for the root.
///
/// # Errors
/// `Escape` if the name leaves the root.
pub(super) fn clean(name: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                if !clean.pop() {
                    return Err(Error::new(
                        ErrorKind::Escape,
                        format!("entry `{}` leaves the root", name.display()),
                    ));
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_beneath_the_root() {
        let check = |name: &str, expect: Option<&str>| {
            let cleaned = clean(Path::new(name)).ok();
            assert_eq!(cleaned.as_deref(), expect.map(Path::new), "{name}");
        };
        check("a/b", Some("a/b"));
        check("./a//b/", Some("a/b"));
        check("/a", Some("a"));
        check("./", Some(""));
        check("a/../b", Some("b"));
        check("a/..", Some(""));
        check("..", None);
        check("../x", None);
        check("/../x", None);
        check("a/../../x", None);
        check("...", Some("..."));
    }
}
