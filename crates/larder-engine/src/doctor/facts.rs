//! The facts that need the disk: what lies in a context, what builds have cost.

use std::path::Path;

use larder_dockerfile::Dockerfile;
use larder_tree::beneath::Root;

use super::{PastBuild, Patient, survey};
use crate::build::{self, inputs};
use crate::engine::Engine;
use crate::error::{BuildError, ErrorClass, Result};
use crate::history::BuildReport;
use crate::request::DockerfileSource;

/// As many builds are looked at, of all that were recorded of a Dockerfile.
const MAX_BUILDS: usize = 20;

/// Reads a Dockerfile and looks at its context. History and cache sources are left for who knows
/// them. `file` is what findings call the Dockerfile.
///
/// # Errors
/// When one of them can't be read, or the Dockerfile is wrong.
pub fn examine(context: &Path, dockerfile: &Path, file: &str) -> Result<Patient> {
    let (text, own_ignore) = inputs::read_outside(dockerfile).map_err(|source| {
        BuildError::new(
            ErrorClass::NotFound,
            format!("cannot read the Dockerfile `{file}`"),
        )
        .with_source(source)
    })?;
    let parsed = Dockerfile::parse(&text, file).map_err(|error| {
        let line = error.ranges().first().map_or(0, |range| range.start);
        BuildError::invalid(format!("{file}:{line}: {error}"))
    })?;
    let root = Root::open(context)?;
    let (name, bytes) = if let Some((name, bytes)) = own_ignore {
        (Some(name), bytes)
    } else {
        let bytes = inputs::read_ignore_file(&root)?;
        let is_there = root.metadata(inputs::IGNORE_FILE).is_ok();
        (is_there.then(|| inputs::IGNORE_FILE.to_owned()), bytes)
    };
    let shown = name.as_deref().unwrap_or(inputs::IGNORE_FILE);
    let patterns = inputs::parse_ignore(shown, &bytes)?;
    Ok(Patient {
        file: file.to_owned(),
        stages: parsed.view(),
        context: Some(survey::survey(context, name, &patterns)?),
        ..Patient::default()
    })
}

impl Engine {
    /// Returns the builds on record of a Dockerfile with its context, the newest first: those under
    /// its own name and those under the names of `targets`.
    ///
    /// # Errors
    /// When the store can't be read. A report that can't be read is left out.
    pub fn past_builds(
        &self,
        context: &Path,
        dockerfile: &Path,
        targets: &[&str],
    ) -> Result<Vec<PastBuild>> {
        let absolute = |path: &Path| fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let context = absolute(context);
        let mut sources = vec![DockerfileSource::Path(dockerfile.to_owned())];
        if absolute(dockerfile) == context.join("Dockerfile") {
            sources.push(DockerfileSource::Default);
        }
        let mut records = Vec::new();
        for source in &sources {
            for target in std::iter::once(&"").chain(targets) {
                let scope = build::scope(&context.to_string_lossy(), source, target);
                records.extend(self.store.builds(&scope)?);
            }
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.number));
        records.truncate(MAX_BUILDS);
        let reports = records.iter();
        let reports = reports.filter_map(|r| serde_json::from_slice::<BuildReport>(&r.report).ok());
        Ok(reports.map(PastBuild::from).collect())
    }
}
