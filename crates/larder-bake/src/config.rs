//! What files come to before anything is asked of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::definitions::{Definitions, Options};
use crate::error::Error;
use crate::path;
use crate::source::{File, Format};
use crate::syntax;
use crate::target::{Group, Target};

/// The group, or else the target, that is built when none is named.
pub(crate) const DEFAULT: &str = "default";

/// Reads compose files. Implemented by whoever knows them, so that this crate need not.
pub trait ComposeReader {
    /// Returns a target for each service that is built, all profiles active, sorted by name.
    ///
    /// # Errors
    /// With what is wrong in which file.
    fn read(
        &self,
        files: &[Arc<File>],
    ) -> Result<Vec<(String, Target)>, Box<dyn std::error::Error + Send + Sync>>;
}

/// A variable and what it is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its type if that is declared, else nothing.
    pub type_name: String,
    /// Its value as text; `None` for null.
    pub value: Option<String>,
}

/// All targets, groups and variables of some files.
#[derive(Debug)]
pub struct Definition {
    pub(crate) groups: BTreeMap<String, Group>,
    /// In the order of the files.
    pub(crate) targets: Vec<(String, Target)>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) options: Options,
    warnings: Vec<String>,
}

impl Definition {
    /// Reads `files`, later ones over earlier ones; compose files come first, all together.
    ///
    /// # Errors
    /// If a file is malformed, an expression can't be evaluated, or a variable is not valid; the
    /// error tells the place.
    pub fn read(
        files: Vec<File>,
        compose: &dyn ComposeReader,
        options: Options,
    ) -> Result<Self, Error> {
        let files: Vec<Arc<File>> = files.into_iter().map(Arc::new).collect();
        Self::read_files(&files, compose, options).map_err(|error| error.locate(&files))
    }

    fn read_files(
        files: &[Arc<File>],
        compose: &dyn ComposeReader,
        options: Options,
    ) -> Result<Self, Error> {
        let is_compose = |file: &&Arc<File>| file.format() == Format::Compose;
        let compose_files: Vec<Arc<File>> = files.iter().filter(is_compose).cloned().collect();
        let mut definition = Self {
            groups: BTreeMap::new(),
            targets: Vec::new(),
            variables: Vec::new(),
            options: options.clone(),
            warnings: Vec::new(),
        };
        if !compose_files.is_empty() {
            definition.add_services(&compose_files, compose)?;
        }
        let mut bodies = Vec::new();
        for (index, file) in files.iter().enumerate() {
            if file.format() != Format::Compose {
                bodies.push(syntax::parse(file, index)?);
            }
        }
        definition.add_blocks(&Definitions::new(bodies, options)?, files)?;
        Ok(definition)
    }

    fn add_services(
        &mut self,
        files: &[Arc<File>],
        compose: &dyn ComposeReader,
    ) -> Result<(), Error> {
        let services = compose
            .read(files)
            .map_err(|error| Error::definition(format!("failed to parse compose file: {error}")))?;
        let mut group = Group::default();
        for (name, mut target) in services {
            if self.options.is_relative_to_files
                && let Some(file) = files.first()
            {
                rebase(&mut target, &file.name);
            }
            group.targets.push(name.clone());
            self.add(name, &target);
        }
        self.groups.insert(DEFAULT.to_owned(), group);
        Ok(())
    }

    fn add_blocks(&mut self, definitions: &Definitions, files: &[Arc<File>]) -> Result<(), Error> {
        self.warnings.extend(definitions.warnings.iter().cloned());
        definitions.check_variables()?;
        for (index, instance) in definitions.instances()?.iter().enumerate() {
            let mut target = definitions.target(index)?;
            if self.options.is_relative_to_files {
                rebase(&mut target, &files[instance.file].name);
            }
            self.add(instance.name.clone(), &target);
        }
        self.groups.extend(definitions.groups()?);
        for (label, names) in definitions.renamed()? {
            self.groups.entry(label).or_insert_with(|| Group {
                description: String::new(),
                targets: names,
            });
        }
        definitions.check_attributes()?;
        self.variables = definitions.all_variables()?;
        Ok(())
    }

    /// Puts `target` over what has that name already.
    fn add(&mut self, name: String, target: &Target) {
        match self.targets.iter_mut().find(|(other, _)| *other == name) {
            Some((_, existing)) => existing.merge(target),
            None => self.targets.push((name, target.clone())),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Target> {
        let found = self.targets.iter().find(|(other, _)| other == name);
        found.map(|(_, target)| target)
    }

    /// Returns what was found in the files and means nothing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns all variables, sorted by name.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }
}

/// Makes contexts relative to the working directory that are relative to the file `name`.
fn rebase(target: &mut Target, name: &str) {
    let Some(base) = Path::new(name)
        .parent()
        .and_then(Path::to_str)
        .filter(|_| name != "-")
    else {
        return;
    };
    if base.is_empty() {
        return;
    }
    let rebased = |context: &str| {
        let is_path = !path::is_remote(context) && !context.contains("://") && !has_scheme(context);
        if is_path && !context.starts_with('/') {
            path::clean(&format!("{base}/{context}"))
        } else {
            context.to_owned()
        }
    };
    if let Some(context) = &mut target.context {
        *context = rebased(context);
    }
    for context in target.contexts.values_mut() {
        *context = rebased(context);
    }
    target.default_context = Some(path::clean(base));
}

/// Whether a context is no path by what it begins with.
fn has_scheme(context: &str) -> bool {
    ["target:", "docker-image:", "oci-layout:"]
        .iter()
        .any(|scheme| context.starts_with(scheme))
}
