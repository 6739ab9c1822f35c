//! Services as targets.

use larder_bake::{Definition, Target};

use super::support::{Services, file, options, strings};

fn services() -> Services {
    let target = |tag: &str| Target {
        tags: Some(strings(&[tag])),
        dockerfile: Some("Dockerfile-alternate".to_owned()),
        ..Target::default()
    };
    Services(vec![
        ("api".to_owned(), target("api:1")),
        ("web".to_owned(), target("web:1")),
    ])
}

#[test]
fn services_are_the_default_group_and_bake_files_come_over_them() {
    let files = vec![
        file("docker-bake.hcl", "target \"api\" { context = \"dir\" }"),
        file("compose.yaml", "services: {}"),
    ];
    let definition = Definition::read(files, &services(), options(&[])).unwrap();
    let plan = definition.plan(&[], &[]).unwrap();
    assert_eq!(plan.groups["default"].targets, ["api", "web"]);
    assert_eq!(plan.targets["api"].context.as_deref(), Some("dir"));
    assert_eq!(
        plan.targets["api"].dockerfile.as_deref(),
        Some("Dockerfile-alternate")
    );
    assert_eq!(plan.targets["web"].tags, Some(strings(&["web:1"])));
    // Dots in the names of services are underscores in targets.
    assert!(definition.plan(&strings(&["a.pi"]), &[]).is_err());
}

#[test]
fn a_file_without_an_extension_is_a_compose_file_if_it_has_services() {
    let files = vec![file("stack", "name: x\nservices:\n  api: {build: .}\n")];
    let definition = Definition::read(files, &services(), options(&[])).unwrap();
    assert!(definition.plan(&strings(&["api"]), &[]).is_ok());
    let files = vec![file("compose.yaml", "")];
    let error = Definition::read(files, &Services::default(), options(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to parse compose file: no services"
    );
}
