//! The rules of project names.

use std::path::Path;

use crate::error::{Error, Result};

/// Checks the name of a project: small letters, digits, `-` and `_`, the first a letter or digit.
///
/// # Errors
/// When it is none.
pub fn check(name: &str) -> Result<()> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if name.chars().all(is_part) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(Error::options(format!(
        "invalid project name {name:?}: must consist only of lowercase alphanumeric characters, hyphens, and underscores as well as start with a letter or number"
    )))
}

/// Returns the name of a project in `directory`: the directory's own, without what a name can't
/// have.
pub(crate) fn of_directory(directory: &Path) -> Result<String> {
    normal(&directory.file_name().unwrap_or_default().to_string_lossy())
}

/// Returns a name without what a project's name can't have.
pub(crate) fn normal(name: &str) -> Result<String> {
    let name: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
        .collect();
    let name = name.trim_start_matches(['_', '-']);
    if name.is_empty() {
        return Err(Error::options(
            "project name must not be empty\nhint: name the project with `-p`",
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_s_name_is_made_to_fit() {
        for (directory, expect) in [
            ("/x/My App.v2", Some("myappv2")),
            ("/x/_under-score_", Some("under-score_")),
            ("/x/Ünï", Some("n")),
            ("/", None),
            ("/x/---", None),
        ] {
            let name = of_directory(Path::new(directory)).ok();
            assert_eq!(name.as_deref(), expect, "{directory}");
        }
    }

    #[test]
    fn a_given_name_must_fit() {
        for (name, is_fine) in [
            ("a-b_1", true),
            ("1a", true),
            ("A", false),
            ("-a", false),
            ("", false),
            ("a.b", false),
        ] {
            assert_eq!(check(name).is_ok(), is_fine, "{name}");
        }
    }
}
