//! The text of a case.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;

/// What begins the header of a section.
const HEADER: &str = "=== ";

/// A case: what it shows, and sections that are gone through in order.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// `area/name`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The lines before the first section.
    head: String,
    pub(crate) sections: Vec<Section>,
}

/// A section: `=== NAME ARGUMENT`, and the lines up to the next.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) argument: String,
    /// Ends in one line break, unless it is empty.
    pub(crate) text: String,
}

impl Section {
    /// Returns its lines without empty ones and comments.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with("# ");
        self.text.lines().filter(is_said)
    }
}

impl Case {
    /// Reads all cases below `dir`, in the order of their names.
    pub(crate) fn read_all(dir: &Path) -> Result<Vec<Self>> {
        let mut cases = Vec::new();
        for area in fs::read_dir(dir)? {
            let area = area?;
            for file in fs::read_dir(area.path())? {
                let path = file?.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "case")
                {
                    let area = area.file_name();
                    let name = Path::new(&area).join(path.file_stem().unwrap_or_default());
                    let case =
                        Self::parse(&fs::read_to_string(&path)?, name.to_string_lossy(), &path);
                    cases.push(case.with_context(|| path.display().to_string())?);
                }
            }
        }
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(cases)
    }

    pub(crate) fn parse(text: &str, name: impl Into<String>, path: &Path) -> Result<Self> {
        let mut head = String::new();
        let mut sections: Vec<Section> = Vec::new();
        for line in text.lines() {
            if let Some(header) = line.strip_prefix(HEADER) {
                let (name, argument) = header.split_once(' ').unwrap_or((header, ""));
                sections.push(Section {
                    name: name.to_owned(),
                    argument: argument.trim().to_owned(),
                    text: String::new(),
                });
            } else {
                let text = match sections.last_mut() {
                    Some(section) => &mut section.text,
                    None => &mut head,
                };
                text.push_str(line);
                text.push('\n');
            }
        }
        for text in sections.iter_mut().map(|section| &mut section.text) {
            text.truncate(text.trim_end_matches('\n').len());
            if !text.is_empty() {
                text.push('\n');
            }
        }
        ensure!(
            !head.trim().is_empty(),
            "a case begins by saying what it shows"
        );
        Ok(Self {
            name: name.into(),
            path: path.to_owned(),
            head,
            sections,
        })
    }

    /// Returns why it has no meaning for `form`; `None` if it has one.
    pub(crate) fn excludes(&self, form: &str) -> Option<&str> {
        let excluded = |section: &&Section| {
            let (forms, _) = section
                .argument
                .split_once(':')
                .unwrap_or((&section.argument, ""));
            section.name == "not" && forms.split(',').any(|excluded| excluded.trim() == form)
        };
        let section = self.sections.iter().find(excluded)?;
        Some(&section.argument)
    }

    /// Writes it with other texts in its sections.
    pub(crate) fn rewrite(&self, texts: &[String]) -> Result<()> {
        let mut file = self.head.clone();
        for (section, text) in self.sections.iter().zip(texts) {
            let header = format!("{HEADER}{} {}", section.name, section.argument);
            file.push_str(header.trim_end());
            file.push('\n');
            file.push_str(text);
            file.push('\n');
        }
        file.truncate(file.trim_end_matches('\n').len() + 1);
        Ok(fs::write(&self.path, file)?)
    }
}
