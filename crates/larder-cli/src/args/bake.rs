//! The flags of `larder bake`: those of `docker buildx bake`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use larder_bake::ListFormat;

use super::call::CallArg;
use super::values;
use crate::progress::Mode;

/// The flags of `larder bake`.
#[derive(Debug, clap::Args)]
pub(crate) struct BakeArgs {
    /// Targets, groups or patterns of them [default: default]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Bake or compose file, or `-` for standard input; later ones override earlier ones
    /// [env: BUILDX_BAKE_FILE] [default: those with the usual names]
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Override an attribute: `target.key=value`; `+=` adds to a list, `*` is a pattern
    #[arg(long = "set", value_name = "TARGET.KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Set a variable
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) variables: Vec<(String, String)>,
    /// Show what would be built, as JSON, and build nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// List `targets` or `variables`, with `,format=json` for programs
    #[arg(long, value_name = "WHAT", value_parser = list)]
    pub(crate) list: Option<ListArg>,
    /// Push the images to the registries of their names
    #[arg(long)]
    pub(crate) push: bool,
    /// Keep the images in the local store; what happens by default
    #[arg(long)]
    pub(crate) load: bool,
    /// Run all steps again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new())]
    pub(crate) no_cache: Option<bool>,
    /// Ask the registry for newer base images
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = BoolishValueParser::new())]
    pub(crate) pull: Option<bool>,
    /// How to show the builds: auto, tty, plain, quiet, none or rawjson [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", hide_possible_values = true)]
    pub(crate) progress: Option<Mode>,
    /// Write what came of each build to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Let builds access something: `fs.read=PATH`, `fs.write=PATH`, `fs=PATH`, `network.host`
    #[arg(long = "allow", value_name = "ENTITLEMENT")]
    pub(crate) allowed: Vec<String>,
    /// Check the Dockerfiles and build nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// What to do in place of building: `check`, with `,format=json` for programs
    #[arg(long, value_name = "METHOD", value_parser = super::call::parse)]
    pub(crate) call: Option<CallArg>,
    /// Lend RUN steps the host's CA certificates and proxy settings
    #[arg(long)]
    pub(crate) host_ca: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) policy: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) execution: Option<String>,
    #[arg(short, long, hide = true, value_name = "COUNT")]
    pub(crate) jobs: Option<usize>,
}

/// What `--list` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListArg {
    pub(crate) what: Listed,
    pub(crate) format: ListFormat,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    Targets,
    Variables,
}

/// Reads `targets`, or `type=variables,format=json`.
fn list(text: &str) -> Result<ListArg, String> {
    let (mut what, mut format) = (None, ListFormat::Table);
    for field in values::csv_fields(text)? {
        match field.split_once('=').unwrap_or(("type", &field)) {
            ("type", "targets") => what = Some(Listed::Targets),
            ("type", "variables") => what = Some(Listed::Variables),
            ("type", other) => {
                return Err(format!(
                    "invalid list type `{other}` (expected targets or variables)"
                ));
            }
            ("format", "table") => format = ListFormat::Table,
            ("format", "json") => format = ListFormat::Json,
            ("format", other) => {
                return Err(format!(
                    "invalid list format `{other}` (expected table or json)"
                ));
            }
            (key, _) => return Err(format!("unexpected key `{key}`")),
        }
    }
    let what = what.ok_or("expected targets or variables")?;
    Ok(ListArg { what, format })
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the name before `=` is empty".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("expected `NAME=VALUE`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_a_type_and_a_format() {
        use ListFormat::{Json, Table};
        for (text, expected) in [
            ("targets", Some((Listed::Targets, Table))),
            ("type=variables", Some((Listed::Variables, Table))),
            ("type=targets,format=json", Some((Listed::Targets, Json))),
            ("variables,format=table", Some((Listed::Variables, Table))),
            ("groups", None),
            ("targets,format=yaml", None),
            ("targets,color=red", None),
            ("format=json", None),
            ("", None),
        ] {
            let list = list(text).ok().map(|list| (list.what, list.format));
            assert_eq!(list, expected, "{text}");
        }
    }
}
