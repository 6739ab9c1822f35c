//! Reading and planning in one line.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use larder_bake::{ComposeReader, Definition, Error, File, Options, Plan, Target};

/// Services that a compose file would have.
#[derive(Default)]
pub(crate) struct Services(pub(crate) Vec<(String, Target)>);

impl ComposeReader for Services {
    fn read(
        &self,
        _files: &[Arc<File>],
    ) -> Result<Vec<(String, Target)>, Box<dyn std::error::Error + Send + Sync>> {
        if self.0.is_empty() {
            return Err("no services".into());
        }
        Ok(self.0.clone())
    }
}

pub(crate) fn file(name: &str, text: &str) -> File {
    File {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

pub(crate) fn options(environment: &[(&str, &str)]) -> Options {
    let now: Timestamp = "2024-02-29T12:34:56Z".parse().unwrap();
    let mut options = Options::new("linux/amd64", now, || [0xab; 16]);
    options.environment = pairs(environment);
    options
}

pub(crate) fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn read_all(
    files: Vec<File>,
    environment: &[(&str, &str)],
) -> Result<Definition, Error> {
    Definition::read(files, &Services::default(), options(environment))
}

/// Reads one file in HCL.
pub(crate) fn read(text: &str) -> Result<Definition, Error> {
    read_all(vec![file("docker-bake.hcl", text)], &[])
}

/// Plans targets of one file in HCL.
pub(crate) fn plan(text: &str, targets: &[&str]) -> Plan {
    plan_with(text, targets, &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn plan_with(text: &str, targets: &[&str], overrides: &[&str]) -> Result<Plan, Error> {
    read(text)?.plan(&strings(targets), &strings(overrides))
}

/// Returns why a file, or a plan of it, is wrong.
pub(crate) fn error(text: &str) -> String {
    match plan_with(text, &[], &[]) {
        Ok(plan) => panic!("no error: {text}: {}", plan.to_json()),
        Err(error) => error.to_string(),
    }
}

/// Returns what an expression comes to as a build argument, in a file that begins with `before`.
pub(crate) fn argument(
    before: &str,
    expression: &str,
    environment: &[(&str, &str)],
) -> Result<Option<String>, Error> {
    let text = format!("{before}\ntarget \"default\" {{\n  args = {{ v = {expression} }}\n}}\n");
    let definition = read_all(vec![file("docker-bake.hcl", &text)], environment)?;
    let plan = definition.plan(&[], &[])?;
    Ok(plan.targets["default"].args.get("v").cloned().flatten())
}
