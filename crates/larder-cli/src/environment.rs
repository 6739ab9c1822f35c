//! The environment variables that larder reads, in one place.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A snapshot of the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(HashMap<OsString, OsString>);

impl Environment {
    /// Returns that of the process.
    pub(crate) fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Returns one that holds `variables` only.
    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let pairs = variables.iter();
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// Returns a variable's value if it is set, even to nothing; `None` if it is no Unicode.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(OsStr::new(name))?.to_str()
    }

    /// Returns all variables that are Unicode.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)))
    }

    /// Returns a variable's value if it is set to something.
    pub(crate) fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Returns a variable that holds a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.0.get(OsStr::new(name))?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    }

    /// Returns where a configuration file is looked for, the user's own first.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let own = self.user_directory("XDG_CONFIG_HOME", ".config");
        let system = PathBuf::from("/etc/larder");
        own.into_iter()
            .chain([system])
            .map(|directory| directory.join("larder.toml"))
            .collect()
    }

    /// Returns the state directory of a user other than root; `None` if there is no home.
    pub(crate) fn user_root(&self) -> Option<PathBuf> {
        self.user_directory("XDG_DATA_HOME", ".local/share")
    }

    /// Returns larder's directory below that of a variable (XDG base directories), which counts
    /// only if it is absolute, else below the home directory.
    fn user_directory(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let base = self
            .path(variable)
            .filter(|path| path.is_absolute())
            .or_else(|| self.path("HOME").map(|home| home.join(below_home)))?;
        Some(base.join("larder"))
    }

    /// Returns the directory of the configuration of Docker's tools; `None` if there is no home.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        self.path("DOCKER_CONFIG")
            .or_else(|| Some(self.path("HOME")?.join(".docker")))
    }

    /// Whether colours are unwanted (no-color.org).
    pub(crate) fn no_color(&self) -> bool {
        self.non_empty("NO_COLOR").is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_directories_follow_xdg() {
        for (variables, expected) in [
            (&[("HOME", "/h")][..], "/h/.local/share/larder"),
            (&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")], "/d/larder"),
            (
                &[("HOME", "/h"), ("XDG_DATA_HOME", "d")],
                "/h/.local/share/larder",
            ),
        ] {
            let root = Environment::of(variables).user_root();
            assert_eq!(root, Some(PathBuf::from(expected)), "{variables:?}");
        }
        assert_eq!(Environment::default().user_root(), None);
        assert_eq!(
            Environment::of(&[("XDG_CONFIG_HOME", "/c")]).config_files(),
            [
                PathBuf::from("/c/larder/larder.toml"),
                PathBuf::from("/etc/larder/larder.toml")
            ]
        );
    }
}
