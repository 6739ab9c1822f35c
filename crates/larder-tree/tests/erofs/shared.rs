//! Images that use the blocks of earlier ones.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use larder_tree::context::StatCache;
use larder_tree::diff::Style;
use larder_tree::erofs::{Files, Past, Reader};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::again::{digested, image_of, pattern};
use crate::support::{TestImage, assert_read_as, can_mount, found, packed};

/// Bytes of a large file, and what an image takes besides those.
const LARGE: usize = 300_001;
const METADATA_BYTES: u64 = 192 << 10;

/// A context, and the images that were made of it, each of what it was then.
struct Generations {
    context: TempDir,
    cache: StatCache,
    images: Vec<TestImage>,
}

impl Generations {
    /// Begins with large files of numbers, and small ones.
    fn new(large_count: usize) -> Self {
        let context = tempfile::tempdir().unwrap();
        for number in 0..large_count {
            write(context.path(), number, LARGE + number);
        }
        for number in 0..40 {
            let path = context.path().join(format!("small{number}"));
            // Some have blocks, and are copied nevertheless.
            let size = if number % 10 == 9 {
                12_345
            } else {
                100 * number
            };
            fs::write(path, pattern(number, size)).unwrap();
        }
        let mut generations = Self {
            context,
            cache: StatCache::default(),
            images: Vec::new(),
        };
        generations.add();
        generations
    }

    /// Makes an image of the context as it is now, with the blocks of the one before.
    fn add(&mut self) {
        let tree = digested(self.context.path(), self.cache.clone());
        if let Some(cache) = tree.updated_cache() {
            self.cache = cache;
        }
        let past = self.images.len().checked_sub(1).map(|last| self.past(last));
        self.images.push(image_of(&tree, past.as_ref()));
    }

    fn past(&self, number: usize) -> Past {
        let past = Past::open(self.files(number)).unwrap();
        past.shared_as(&name(number))
    }

    /// Opens an image with its devices.
    fn files(&self, number: usize) -> Files {
        let own = File::open(self.images[number].path()).unwrap();
        Files::open(own, |name| File::open(self.path_of(name))).unwrap()
    }

    fn path_of(&self, name: &str) -> PathBuf {
        let number: usize = name.strip_prefix("image ").unwrap().parse().unwrap();
        self.images[number].path()
    }

    /// Returns the numbers of the images that an image uses.
    fn devices(&self, number: usize) -> Vec<String> {
        let own = File::open(self.images[number].path()).unwrap();
        Files::device_names(&own).unwrap()
    }

    fn own_bytes(&self, number: usize) -> u64 {
        fs::metadata(self.images[number].path()).unwrap().len()
    }

    /// Compares the last image with one that has all of the context of its own.
    fn check(&self) {
        let last = self.images.len() - 1;
        let reader = Reader::open(self.files(last)).unwrap();
        let whole = image_of(&digested(self.context.path(), self.cache.clone()), None);
        let whole_reader = Reader::open(File::open(whole.path()).unwrap()).unwrap();
        let layer = |reader| packed(reader, None, Style::Overlay).unwrap();
        assert!(layer(&reader) == layer(&whole_reader), "image {last}");
        if can_mount() {
            let devices: Vec<_> = self
                .devices(last)
                .iter()
                .map(|it| self.path_of(it))
                .collect();
            let mounted = self.images[last].mount_with(&devices);
            assert_read_as(&reader, mounted.path(), None);
            let shown = found(&mounted.at("app"));
            for entry in fs::read_dir(self.context.path()).unwrap() {
                let entry = entry.unwrap();
                let data = &shown[Path::new(&entry.file_name())].data;
                assert!(*data == fs::read(entry.path()).unwrap(), "{entry:?}");
            }
        }
    }
}

fn name(number: usize) -> String {
    format!("image {number}")
}

/// Writes a large file anew.
fn write(context: &Path, number: usize, seed: usize) {
    fs::write(context.join(format!("large{number}")), pattern(seed, LARGE)).unwrap();
}

#[test]
fn a_changed_file_is_all_that_an_image_has_of_its_own() {
    let mut generations = Generations::new(12);
    assert!(generations.own_bytes(0) > 12 * LARGE as u64);
    // Nothing: not even a device for it is needed twice.
    generations.add();
    generations.check();
    assert_eq!(generations.devices(1), [name(0)]);
    assert!(generations.own_bytes(1) < METADATA_BYTES);
    // One file, and another one. What has but little of its own is not worth being a device.
    for (number, seed) in [(3, 1001), (5, 1002), (3, 1003)] {
        write(generations.context.path(), number, seed);
        generations.add();
        generations.check();
        let last = generations.images.len() - 1;
        assert!(generations.own_bytes(last) < LARGE as u64 + METADATA_BYTES);
        assert_eq!(generations.devices(last).first(), Some(&name(0)));
    }
    // Once more the image before is one of several, and is read through all of them.
    assert_eq!(generations.devices(4), [name(0), name(3)]);
}

#[test]
fn an_image_of_which_little_is_left_is_let_go() {
    let mut generations = Generations::new(8);
    for number in 0..5 {
        write(generations.context.path(), number, 2000 + number);
    }
    // The first image still is used as a whole, of which three eighths are left then.
    generations.add();
    generations.check();
    assert_eq!(generations.devices(1), [name(0)]);
    write(generations.context.path(), 7, 3000);
    generations.add();
    generations.check();
    assert_eq!(generations.devices(2), [name(1)]);
    let own = generations.own_bytes(2);
    assert!(own > 3 * LARGE as u64 && own < 3 * LARGE as u64 + METADATA_BYTES);
}

#[test]
fn devices_are_few_however_often_something_changes() {
    let mut generations = Generations::new(40);
    let mut most = 0;
    for generation in 0..18 {
        write(generations.context.path(), generation, 4000 + generation);
        generations.add();
        let devices = generations.devices(generation + 1);
        most = most.max(devices.len());
        // What goes into a new image instead is little: the least of all that could be devices.
        assert!(generations.own_bytes(generation + 1) < 4 * LARGE as u64);
    }
    assert_eq!(most, 8);
    generations.check();
}

#[test]
fn nothing_is_shared_that_has_no_name_for_it() {
    let mut generations = Generations::new(3);
    let tree = digested(generations.context.path(), generations.cache.clone());
    let past = Past::open(generations.files(0)).unwrap();
    generations.images.push(image_of(&tree, Some(&past)));
    assert!(generations.devices(1).is_empty());
    // A name must have room in the table of devices.
    let past = Past::open(generations.files(0)).unwrap();
    let image = image_of(&tree, Some(&past.shared_as(&"long".repeat(20))));
    assert!(Files::device_names(&image.file_again()).unwrap().is_empty());
}

#[test]
fn devices_that_are_not_there_are_told() {
    // So few blocks that a byte has their number.
    let mut generations = Generations::new(2);
    generations.add();
    let own = || File::open(generations.images[1].path()).unwrap();
    let gone = |_: &str| Err(io::ErrorKind::NotFound.into());
    assert_eq!(
        Files::open(own(), gone).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    let without = Reader::open(own()).unwrap_err();
    assert!(format!("{without:#?}").contains("missing"), "{without:?}");
    // An image that was cut short meanwhile.
    let short = |name: &str| {
        let file = tempfile::tempfile()?;
        let bytes = fs::read(generations.path_of(name))?;
        file.write_all_at(&bytes[..bytes.len() / 2], 0)?;
        Ok(file)
    };
    let error = Files::open(own(), short).unwrap_err();
    assert!(error.to_string().contains("the end of an image"), "{error}");
    // Tables that are none.
    let good = fs::read(generations.images[1].path()).unwrap();
    let mut outcomes = BTreeMap::new();
    for (at, byte) in [
        (0, 0xff),
        (64, 1),
        (68, 1),
        (71, 0),
        (1024 + 86, 2),
        (1024 + 80, 9),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bad, 0).unwrap();
        let opened = Files::open(file, |name| {
            let found = name.strip_prefix("image ").is_some();
            if found {
                File::open(generations.path_of(name))
            } else {
                gone(name)
            }
        });
        let read = opened.and_then(|files| {
            let reader = Reader::open(files).map_err(io::Error::other)?;
            packed(&reader, None, Style::Overlay).map_err(io::Error::other)
        });
        outcomes.insert(at, read.is_err());
    }
    assert!(outcomes.values().all(|failed| *failed), "{outcomes:?}");
}

#[test]
fn shared_holes_stay_holes() {
    let mut generations = Generations::new(2);
    let path = generations.context.path().join("sparse");
    let file = File::create(path).unwrap();
    file.write_all_at(&pattern(1, 70_000), 0).unwrap();
    file.write_all_at(&pattern(2, 5000), 2 << 20).unwrap();
    generations.add();
    generations.add();
    generations.check();
    let own = fs::metadata(generations.images[2].path()).unwrap();
    assert!(own.blocks() * 512 < METADATA_BYTES);
}

/// What a change does to a file of a number: gives it new content of a length, or removes it.
fn changes() -> impl Strategy<Value = Vec<(usize, Option<usize>)>> {
    let length = prop_oneof![
        0_usize..200_000,
        65_000_usize..66_000,
        (0_usize..40).prop_map(|blocks| blocks * 4096),
        (1_usize..40).prop_map(|blocks| blocks * 4096 - 20),
    ];
    prop::collection::vec((0_usize..12, prop::option::weighted(0.9, length)), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_changes_the_rest_is_what_it_was(all in prop::collection::vec(changes(), 2..8)) {
        let mut generations = Generations::new(3);
        let mut seed = 5000;
        for changes in all {
            for (number, length) in changes {
                let path = generations.context.path().join(format!("any{number}"));
                seed += 1;
                match length {
                    Some(length) => fs::write(path, pattern(seed, length)).unwrap(),
                    None => drop(fs::remove_file(path)),
                }
            }
            generations.add();
            generations.check();
        }
    }
}
