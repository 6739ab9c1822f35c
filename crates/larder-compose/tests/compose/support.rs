use larder_compose::{LoadOptions, Variables};
use tempfile::TempDir;

/// A directory with files.
pub(crate) struct Directory(TempDir);

impl Directory {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    /// Returns options that load what lies here.
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions {
            working_directory: self.0.path().to_owned(),
            ..LoadOptions::default()
        }
    }

    pub(crate) fn with(&self, variables: &[(&str, &str)]) -> LoadOptions {
        LoadOptions {
            variables: Variables::of(variables.iter().copied()),
            ..self.options()
        }
    }

    pub(crate) fn files(&self, names: &[&str]) -> LoadOptions {
        LoadOptions {
            files: names.iter().map(Into::into).collect(),
            ..self.options()
        }
    }

    /// Puts `[dir]` where the directory's path stands, `[name]` where its project's name does.
    pub(crate) fn redact(&self, text: &str) -> String {
        let path = self.0.path().to_string_lossy();
        let name = self.0.path().file_name().unwrap().to_string_lossy();
        let name = name.trim_start_matches('.').to_lowercase();
        text.replace(&*path, "[dir]").replace(&name, "[name]")
    }
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}
