//! From files to one tree.

mod discover;
mod extends;
mod implied;
mod include;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::canonical::{self, Base};
use crate::dotenv::{self, EnvFormat};
use crate::error::{Error, ErrorKind, Result, Warning};
use crate::interpolate::interpolate;
use crate::merge;
use crate::model::Project;
use crate::node::{Map, Node, Value};
use crate::project_name;
use crate::schema;
use crate::values;
use crate::variables::Variables;
use crate::yaml;

/// Files that one project may read: compose files, included and extended ones.
const MAX_FILES: usize = 1000;

/// Names the standard input as a compose file.
pub(crate) const STDIN: &str = "-";

/// What to load, and where from.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The working directory, absolute.
    pub working_directory: PathBuf,
    /// The compose files, `-f`; empty for those that `COMPOSE_FILE` names, or those with the
    /// usual names. `-` is the standard input.
    pub files: Vec<PathBuf>,
    /// What relative paths are relative to; the first file's directory by default.
    pub project_directory: Option<PathBuf>,
    /// The project's name, `-p`.
    pub project_name: Option<String>,
    /// The profiles that are on, `--profile`; `*` for all.
    pub profiles: Vec<String>,
    /// Env files, `--env-file`; empty for `COMPOSE_ENV_FILES`, or `.env`.
    pub env_files: Vec<PathBuf>,
    /// The variables of the shell.
    pub variables: Variables,
    /// What the standard input holds, if it was read before.
    pub stdin: Option<String>,
    /// Whether variables in values are left as they are.
    pub no_interpolate: bool,
}

impl LoadOptions {
    /// Loads the project.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without a file; [`ErrorKind::File`], with file, line and key, when
    /// one is wrong.
    pub fn load(&self) -> Result<Project> {
        let mut loader = Loader {
            no_interpolate: self.no_interpolate,
            stdin: self.stdin.clone(),
            warnings: Vec::new(),
            file_count: 0,
        };
        let mut variables = self.variables.clone();
        let env_files = discover::env_files(self, &variables);
        add_env_files(&mut variables, &env_files, &self.working_directory)?;
        let (files, mut warnings) = discover::compose_files(self, &variables)?;
        let directory = self.directory(&files);
        if env_files.is_empty() && directory != self.working_directory {
            add_env_files(&mut variables, &[], &directory)?;
        }
        let mut sources = Vec::new();
        for file in &files {
            sources.push(loader.read(&self.working_directory.join(file), file)?);
        }
        let name = self.name(&sources, &directory, &variables)?;
        variables.add("COMPOSE_PROJECT_NAME", &name);
        let scope = Scope {
            directory: directory.clone(),
            variables,
        };
        let mut tree: Option<Node> = None;
        for documents in sources {
            let file = loader.documents(documents, &scope, &mut include::Stack::default())?;
            match &mut tree {
                Some(tree) => merge::merge(tree, file)?,
                None => tree = Some(file),
            }
        }
        let mut tree =
            tree.ok_or_else(|| Error::new(ErrorKind::NotFound, "no compose file is given"))?;
        merge::drop_resets(&mut tree);
        implied::dependencies(&mut tree);
        warnings.extend(loader.warnings);
        let profiles = discover::profiles(&self.profiles, &scope.variables);
        let files = files.iter().map(|file| self.working_directory.join(file));
        Project::new(tree, name, directory, scope.variables, &profiles).map(|project| Project {
            files: files.collect(),
            warnings,
            ..project
        })
    }

    fn directory(&self, files: &[PathBuf]) -> PathBuf {
        let directory = match (&self.project_directory, files.first()) {
            (Some(directory), _) => self.working_directory.join(directory),
            (None, Some(file)) if file.as_os_str() != STDIN => {
                let file = self.working_directory.join(file);
                file.parent().unwrap_or(Path::new("/")).to_owned()
            }
            _ => self.working_directory.clone(),
        };
        canonical::clean(&directory)
    }

    /// Returns the project's name: the flag's, the variable's, that of the last file with one, or
    /// the directory's.
    fn name(
        &self,
        sources: &[Vec<Node>],
        directory: &Path,
        variables: &Variables,
    ) -> Result<String> {
        let given = self.project_name.as_deref().filter(|name| !name.is_empty());
        let given = given.or_else(|| variables.non_empty("COMPOSE_PROJECT_NAME"));
        if let Some(name) = given {
            project_name::check(name)?;
            return Ok(name.to_owned());
        }
        let named = sources.iter().flatten().rev().find_map(|file| {
            let node = file.as_map()?.get("name")?;
            matches!(node.value, Value::Text(_)).then(|| node.clone())
        });
        let Some(mut node) = named else {
            return project_name::of_directory(directory);
        };
        if !self.no_interpolate {
            interpolate(&mut node, variables, &mut Vec::new())?;
        }
        project_name::normal(node.as_text().unwrap_or_default())
            .map_err(|error| Error::file(&node.at, "name", error.to_string()))
    }
}

/// Adds what env files set to `variables`, which win; without a list, what `.env` in `directory`
/// sets.
fn add_env_files(variables: &mut Variables, files: &[PathBuf], directory: &Path) -> Result<()> {
    let default = directory.join(".env");
    let is_off = variables
        .get("COMPOSE_DISABLE_ENV_FILE")
        .and_then(values::flag)
        .unwrap_or(false);
    let files = match files {
        [] if !is_off && default.is_file() => std::slice::from_ref(&default),
        files => files,
    };
    let mut known = variables.clone();
    let mut pairs = Vec::new();
    for file in files {
        let path = directory.join(file);
        for (name, value) in dotenv::read(&path, EnvFormat::Interpolated, &known)? {
            known.add(&name, &value);
            pairs.push((name, value));
        }
    }
    // The last of them wins.
    for (name, value) in pairs.iter().rev() {
        variables.add(name, value);
    }
    Ok(())
}

/// Reads a text file of a size that makes sense.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let is_stdin = path.file_name().is_some_and(|name| name == STDIN);
    let read = if is_stdin {
        io::stdin()
            .take(yaml::MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)?
    } else {
        let file = std::fs::File::open(path)?;
        file.take(yaml::MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)?
    };
    if read as u64 > yaml::MAX_FILE_BYTES {
        return Err(io::Error::other("the file is larger than 16 MiB"));
    }
    Ok(text)
}

/// What the values of a file mean.
#[derive(Debug, Clone)]
struct Scope {
    /// What relative paths are relative to.
    directory: PathBuf,
    variables: Variables,
}

impl Scope {
    fn base(&self) -> Base<'_> {
        Base {
            directory: &self.directory,
            home: self.variables.non_empty("HOME"),
        }
    }
}

struct Loader {
    no_interpolate: bool,
    stdin: Option<String>,
    warnings: Vec<Warning>,
    file_count: usize,
}

impl Loader {
    /// Reads the documents of a file, which messages call `name`.
    fn read(&mut self, path: &Path, name: &Path) -> Result<Vec<Node>> {
        self.file_count += 1;
        if self.file_count > MAX_FILES {
            let message = format!("more than {MAX_FILES} files are included or extended");
            return Err(Error::new(ErrorKind::File, message));
        }
        let given = self.stdin.take_if(|_| name.as_os_str() == STDIN);
        let name: Arc<str> = Arc::from(name.to_string_lossy());
        let text = given.map_or_else(|| read_text(path), Ok).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::File,
            };
            Error::new(kind, format!("cannot read `{name}`")).caused_by(error)
        })?;
        let documents = yaml::parse(&text, &name)?;
        if documents.iter().all(|node| node.value == Value::Null) {
            return Err(Error::new(ErrorKind::File, format!("`{name}` is empty")));
        }
        Ok(documents)
    }

    /// Returns what the documents of a file say together, with all that they include and extend.
    fn documents(
        &mut self,
        documents: Vec<Node>,
        scope: &Scope,
        stack: &mut include::Stack,
    ) -> Result<Node> {
        let mut merged: Option<Node> = None;
        for mut document in documents {
            self.prepare(&mut document, scope)?;
            let mut document = self.with_includes(document, scope, stack)?;
            self.apply_extends(&mut document, scope)?;
            match &mut merged {
                Some(merged) => merge::merge(merged, document)?,
                None => merged = Some(document),
            }
        }
        let nothing = || {
            Node::new(
                Value::Map(Map::default()),
                crate::At::new(&Arc::from(""), 0),
            )
        };
        Ok(merged.unwrap_or_else(nothing))
    }

    /// Interpolates and checks a document, and brings it into its one form.
    fn prepare(&mut self, document: &mut Node, scope: &Scope) -> Result<()> {
        if !self.no_interpolate {
            interpolate(document, &scope.variables, &mut self.warnings)?;
        }
        schema::validate(document)?;
        canonical::canonical(document, scope.base())?;
        if let Value::Map(map) = &mut document.value
            && map.remove("version").is_some()
        {
            let message = "the attribute `version` is obsolete, it will be ignored, please remove it to avoid potential confusion";
            self.warnings.push(Warning {
                at: Some(document.at.clone()),
                message: message.to_owned(),
            });
        }
        Ok(())
    }
}
