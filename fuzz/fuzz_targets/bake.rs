//! A bake file, in JSON if it begins with a brace, in HCL otherwise, is read and planned.
#![no_main]

use std::sync::Arc;

use larder_bake::{ComposeReader, Definition, File, ListFormat, Options, Target};
use libfuzzer_sys::fuzz_target;

struct NoCompose;

impl ComposeReader for NoCompose {
    fn read(
        &self,
        _files: &[Arc<File>],
    ) -> Result<Vec<(String, Target)>, Box<dyn std::error::Error + Send + Sync>> {
        Err("no compose files here".into())
    }
}

fuzz_target!(|text: &str| {
    let extension = if text.starts_with('{') { "json" } else { "hcl" };
    let file = File {
        name: format!("docker-bake.{extension}"),
        text: text.to_owned(),
    };
    let options = Options::new("linux/amd64", jiff::Timestamp::UNIX_EPOCH, || [0; 16]);
    let Ok(definition) = Definition::read(vec![file], &NoCompose, options) else {
        return;
    };
    let _ = definition.list_targets(ListFormat::Json);
    let _ = definition.list_variables(ListFormat::Json);
    if let Ok(plan) = definition.plan(&[], &["*.args.A=1".to_owned()]) {
        let _ = plan.to_json();
    }
});
