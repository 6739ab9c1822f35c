//! Where mistakes are, and files that can't be read.

use larder_bake::{ErrorKind, File};

use super::support::{error, read};

#[test]
fn errors_tell_file_line_and_column() {
    for (text, expected) in [
        (
            "target \"default\" {\n  context = nope\n}",
            "docker-bake.hcl:2,13: `target.default`: there is no variable named `nope`",
        ),
        (
            "target \"default\" {\n  args = {\n    a = \"x-${1 + null}\"\n  }\n}",
            "docker-bake.hcl:3,14: `target.default`: a number is required",
        ),
        ("target \"default\" {\n  context = \n}", "docker-bake.hcl:2"),
        (
            "variable \"A\" {\n  default = upper()\n}",
            "docker-bake.hcl:2,13: `variable.A`: `upper`: 1 arguments",
        ),
        ("x = 1 +\n", "docker-bake.hcl:1"),
        (
            "target \"default\" {\n  tags = [\"é${x}\"]\n}",
            "docker-bake.hcl:2,15:",
        ),
        ("a = 1\na = 2\n", "docker-bake.hcl:2"),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_place_has_the_file_and_its_lines() {
    let error = read("target \"default\" {\n  context = nope\n}").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Definition);
    let place = error.place().unwrap();
    assert_eq!(
        (place.file.name.as_str(), place.line, place.end_line),
        ("docker-bake.hcl", 2, 2)
    );
    assert!(place.file.text.contains("nope"));
}

#[test]
fn what_means_nothing_is_warned_of() {
    let definition =
        read("targt \"x\" {\n}\ntarget \"default\" {\ntag = [nope]\n}\ngroup \"g\" {\ntargets = []\na = 1\n}")
            .unwrap();
    assert_eq!(
        definition.warnings(),
        [
            "blocks of the type `targt` mean nothing (did you mean target?)",
            "`target.default`: the attribute `tag` means nothing (did you mean tags?)",
            "`group.g`: the attribute `a` means nothing",
        ]
    );
    definition.plan(&[], &[]).unwrap();
}

#[test]
fn files_are_read_in_the_order_of_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let read = |names: &[&str], stdin: &[u8]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        File::read_all(&names, directory.path(), &mut &*stdin)
    };
    assert_eq!(
        read(&[], b"").unwrap_err().to_string(),
        "couldn't find a bake definition"
    );
    for name in [
        "docker-bake.override.hcl",
        "docker-bake.hcl",
        "compose.yml",
        "docker-bake.json",
    ] {
        fs_err::write(directory.path().join(name), name).unwrap();
    }
    let names: Vec<String> = read(&[], b"")
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect();
    assert_eq!(
        names,
        [
            "compose.yml",
            "docker-bake.json",
            "docker-bake.hcl",
            "docker-bake.override.hcl"
        ]
    );
    let given = read(&["-", "cwd://docker-bake.hcl"], "\u{feff}x".as_bytes()).unwrap();
    assert_eq!((given[0].name.as_str(), given[0].text.as_str()), ("-", "x"));
    assert_eq!(given[1].text, "docker-bake.hcl");
    let missing = read(&["nope.hcl"], b"").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(
        missing
            .to_string()
            .contains("cannot read the bake file `nope.hcl`"),
        "{missing}"
    );
    let binary = read(&["-"], &[0xff]).unwrap_err();
    assert_eq!(binary.to_string(), "`-` is not UTF-8");
}
