//! Copies that take over from an earlier one what has not changed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use larder_tree::beneath::Root;
use larder_tree::checksum::content_digest;
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use larder_tree::copy::{CopyOptions, copy_again};
use larder_tree::erofs::Past;
use larder_tree::quota::Unlimited;
use tempfile::TempDir;

use crate::support::{TestImage, can_mount};

/// The last of them comes before another in the order of bytes, and after it in that of names.
const DIRS: [&str; 5] = ["d0", "d1", "d2", "d3", "d2-"];

/// What has no name in the record: attributes, or several names.
const READ_ANYWAY: [&str; 3] = ["marked", "linked", "link"];

/// Returns bytes that occur in no file of another number.
pub(crate) fn pattern(number: usize, length: usize) -> Vec<u8> {
    let byte = |at| (at * (7 + 2 * number) + number) as u8;
    (0..length).map(byte).collect()
}

/// Makes a context of files of all lengths that matter.
fn context() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let lengths = [0, 1, 100, 4000, 4095, 4096, 4097, 9000, 70_000, 300_001];
    for (number, dir) in DIRS.iter().enumerate() {
        fs::create_dir(at(dir)).unwrap();
        for length in lengths {
            fs::write(at(&format!("{dir}/{length}")), pattern(number, length)).unwrap();
        }
    }
    fs::write(at("marked"), "with an attribute").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::setxattr(at("marked"), "user.mark", b"x", flags);
    fs::write(at("linked"), "two names").unwrap();
    fs::hard_link(at("linked"), at("link")).unwrap();
    symlink("d0/1", at("symlink")).unwrap();
    dir
}

/// Scans a context whose files are old, and digests them as far as `cache` doesn't know them.
pub(crate) fn digested(context: &Path, cache: StatCache) -> Tree {
    let options = ScanOptions {
        started_at_nanos: i64::MAX,
        ..ScanOptions::default()
    };
    let tree = scan(Root::open(context).unwrap(), &options, cache).unwrap();
    content_digest(&tree, &[]).unwrap();
    tree
}

pub(crate) fn image_of(tree: &Tree, past: Option<&Past>) -> TestImage {
    let image = TestImage::new();
    let options = CopyOptions {
        src: "/".to_owned(),
        dest: "/app".to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    };
    let sink = image.begin();
    copy_again(tree, &sink, &options, &Unlimited, past).unwrap();
    sink.finish().unwrap();
    image
}

fn bytes(image: &TestImage) -> Vec<u8> {
    fs::read(image.path()).unwrap()
}

fn past(image: &TestImage) -> Past {
    Past::open(File::open(image.path()).unwrap()).unwrap()
}

/// Removes all files of which an earlier copy is to have the content.
fn remove_unchanged(context: &Path, changed: &[&str]) {
    for dir in DIRS {
        for entry in fs::read_dir(context.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if !changed.iter().any(|name| path.ends_with(name)) {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn what_has_not_changed_is_taken_over_unread() {
    let context = context();
    let at = |name: &str| context.path().join(name);
    let first = digested(context.path(), StatCache::default());
    let first_image = image_of(&first, None);
    if can_mount() {
        let mounted = first_image.mount();
        for name in ["d0/300001", "d3/4097", "marked", "link"] {
            let expected = fs::read(at(name)).unwrap();
            assert!(fs::read(mounted.at("app").join(name)).unwrap() == expected);
        }
    }
    fs::write(at("d1/100"), "changed").unwrap();
    fs::set_permissions(at("d2/4096"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("d3/new"), "new").unwrap();
    let cache = first.updated_cache().unwrap();
    let expected = bytes(&image_of(&digested(context.path(), cache.clone()), None));
    let second = digested(context.path(), cache);
    remove_unchanged(context.path(), &["d1/100", "d2/4096", "d3/new"]);
    let second_image = image_of(&second, Some(&past(&first_image)));
    assert!(bytes(&second_image) == expected);
    // What was taken over can be taken over again.
    for name in READ_ANYWAY {
        assert!(at(name).exists());
    }
    let third_image = image_of(&second, Some(&past(&second_image)));
    assert!(bytes(&third_image) == expected);
}

#[test]
fn content_that_is_damaged_is_read_again() {
    let context = context();
    let first = digested(context.path(), StatCache::default());
    let image = image_of(&first, None);
    let good = bytes(&image);
    let cache = first.updated_cache().unwrap();
    let needle = pattern(1, 100);
    let places = good.windows(needle.len()).enumerate();
    let places: Vec<usize> = places
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    let file = File::options().write(true).open(image.path()).unwrap();
    for at in places {
        file.write_all_at(b"damaged", at as u64).unwrap();
    }
    // Large files are believed, as in any other use of a layer.
    let large = ["d1/70000", "d1/300001"];
    for name in large {
        fs::write(context.path().join(name), "small now").unwrap();
    }
    let expected = image_of(&digested(context.path(), cache.clone()), None);
    let again = image_of(&digested(context.path(), cache), Some(&past(&image)));
    assert!(bytes(&again) == bytes(&expected));
}

#[test]
fn a_record_that_is_none_is_not_used() {
    let context = context();
    let image = image_of(&digested(context.path(), StatCache::default()), None);
    let good = bytes(&image);
    let open = |bytes: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Past::open(file)
    };
    assert!(open(&good).is_some());
    for at in [1, 8, 16, 24, 25, 100] {
        let mut bad = good.clone();
        let place = bad.len() - at;
        bad[place] ^= 1;
        assert!(open(&bad).is_none(), "byte {at} before the end");
    }
    for length in [0, 20, 4096, good.len() - 4096, good.len() - 1] {
        assert!(open(&good[..length]).is_none(), "length {length}");
    }
    // A few small files are not worth one.
    let few = tempfile::tempdir().unwrap();
    fs::write(few.path().join("f"), "few").unwrap();
    let image = image_of(&digested(few.path(), StatCache::default()), None);
    assert!(Past::open(File::open(image.path()).unwrap()).is_none());
}

#[test]
fn a_record_in_a_file_is_none() {
    let context = context();
    let image = image_of(&digested(context.path(), StatCache::default()), None);
    let good = bytes(&image);
    let trailer = good.len() - 24;
    let entries_bytes = u64::from_le_bytes(good[trailer + 16..].try_into().unwrap());
    let record = &good[trailer - entries_bytes as usize..];
    // The same bytes as before, but in the last block of the file system.
    let mut forged = good[..4096].to_vec();
    let block_count = (good.len() / 4096) as u32;
    forged[1024 + 36..1024 + 40].copy_from_slice(&block_count.to_le_bytes());
    forged.resize(good.len() - record.len(), 0);
    forged.extend_from_slice(record);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&forged, 0).unwrap();
    assert!(Past::open(file).is_none());
}
