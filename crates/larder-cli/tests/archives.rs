//! Images on their way from one state directory to another.

use fs_err as fs;
use larder_testkit::{Base, Larder, Project, Scratch, project};

fn build(project: &Project, name: &str) {
    let dockerfile = format!("FROM busybox\nRUN echo {name} > /name\n");
    project.write(&[("Dockerfile", &dockerfile)]);
    let _ = project.build(&["-t", name]).success();
}

#[test]
fn several_images_travel_in_one_archive() {
    let project = project!(Base::Busybox);
    build(&project, "one");
    build(&project, "two");
    let archive = project.scratch().join("both.tar");
    let archive = archive.to_str().unwrap();
    let save = ["save", "-o", archive, "one", "two", "one"];
    let _ = project.larder().run(save).success();

    let elsewhere = Scratch::new();
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &elsewhere);
    let loaded = larder.run(["load", "-i", archive]).success();
    assert_eq!(
        loaded.text(),
        "Loaded image: one:latest\nLoaded image: two:latest"
    );
    for name in ["one", "two"] {
        let run = larder.run(["run", name, "cat", "/name"]).success();
        assert_eq!(run.text(), name);
    }
}

#[test]
fn what_is_no_archive_is_named() {
    let scratch = Scratch::new();
    let larder = Larder::new(env!("CARGO_BIN_EXE_larder"), &scratch);
    let file = scratch.join("no.tar");
    fs::write(&file, "no tar at all\n".repeat(100)).unwrap();
    for verb in [&["load", "-i"][..], &["import"]] {
        let run = larder.run(verb.iter().map(AsRef::as_ref).chain([file.as_os_str()]));
        let expected = format!("ERROR: cannot load `{}`: ", file.display());
        let _ = run.exit(1).says(&expected);
    }
}
