//! A layer, or an archive, is unpacked beneath a directory: nothing appears beside it.
#![no_main]

use std::path::Path;

use larder_tree::apply::{ApplyOptions, LayerForm, apply_layer, unpack};
use larder_tree::beneath::Root;
use libfuzzer_sys::fuzz_target;

const MAX_BYTES: u64 = 1 << 20;

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        entry.file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fuzz_target!(|input: &[u8]| {
    let Some((form, archive)) = input.split_first() else {
        return;
    };
    let outside = tempfile::Builder::new();
    let outside = outside
        .tempdir_in("/dev/shm")
        .expect("a temporary directory");
    let inside = outside.path().join("inside");
    std::fs::create_dir(&inside).expect("a directory");
    std::fs::write(outside.path().join("sentinel"), "untouched").expect("a file");
    let root = Root::open(&inside).expect("the directory");
    let mut warn = |_| {};
    let options = ApplyOptions {
        max_bytes: MAX_BYTES,
        ..ApplyOptions::new(&mut warn)
    };
    match form % 4 {
        0 => drop(apply_layer(&root, archive, LayerForm::Overlay, options)),
        1 => drop(apply_layer(&root, archive, LayerForm::OverlayUser, options)),
        2 => drop(apply_layer(&root, archive, LayerForm::Tree, options)),
        _ => drop(unpack(&root, archive, options)),
    }
    assert_eq!(names(outside.path()), ["inside", "sentinel"]);
    let sentinel = std::fs::read(outside.path().join("sentinel")).expect("the file");
    assert_eq!(sentinel, b"untouched");
});
