//! A compose file is loaded; what was understood can be shown and built from.
#![no_main]

use larder_compose::{LoadOptions, Variables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let options = LoadOptions {
        // Nothing is there: what the file refers to is not found.
        working_directory: "/nowhere".into(),
        files: vec!["-".into()],
        project_directory: Some("/nowhere".into()),
        project_name: Some("fuzz".to_owned()),
        profiles: vec!["*".to_owned()],
        variables: Variables::of([("A", "b"), ("EMPTY", "")]),
        stdin: Some(text.to_owned()),
        ..LoadOptions::default()
    };
    let Ok(project) = options.load() else {
        return;
    };
    let _ = project.to_json(true);
    let _ = project.build_targets::<&str>(&[]);
    let yaml = project
        .to_yaml(true)
        .expect("what was understood can be shown");
    let again = LoadOptions {
        stdin: Some(yaml),
        ..options
    };
    let again = again.load().expect("what was shown can be read");
    assert_eq!(again.services.len(), project.services.len());
});
