use larder_oci::{Descriptor, Digest, ImageRef, media_type};
use larder_store::{ErrorKind, ImageInfo, Lease, NewImage, PlatformImage, SnapshotId};

use crate::support::{TestStore, digest, layer};

fn name(text: &str) -> ImageRef {
    text.parse().unwrap()
}

pub(crate) fn add(
    lease: &Lease,
    text: &str,
    snapshot: Option<&SnapshotId>,
    names: &[&str],
) -> Digest {
    let config = lease
        .put_blob(format!("config of {text}").as_bytes())
        .unwrap();
    let manifest = format!("manifest of {text}");
    lease.put_blob(manifest.as_bytes()).unwrap();
    let manifest = Descriptor::of(media_type::MANIFEST, manifest.as_bytes());
    let names: Vec<ImageRef> = names.iter().map(|text| name(text)).collect();
    let new = NewImage {
        manifest: &manifest,
        config: &config,
        platform: "linux/amd64",
        created_at: None,
        snapshot,
        others: &[],
        blobs: &[],
    };
    lease.add_image(&new, &names).unwrap();
    lease.add_image(&new, &names).unwrap();
    manifest.digest
}

fn names(images: &[ImageInfo]) -> Vec<Vec<String>> {
    images.iter().map(|image| image.names.clone()).collect()
}

#[test]
fn an_image_is_found_by_name_and_by_digest() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let manifest = add(&lease, "app", None, &["app", "example.com/app:1"]);
    let image = store.resolve_image("app").unwrap();
    assert_eq!(image.manifest.digest, manifest);
    assert_eq!(image.manifest.size_bytes, "manifest of app".len() as u64);
    assert_eq!(
        image.names,
        ["docker.io/library/app:latest", "example.com/app:1"]
    );
    let config = image.config.clone();
    for text in [
        "app:latest",
        "docker.io/library/app",
        "example.com/app:1",
        manifest.as_str(),
        manifest.hex(),
        &manifest.hex()[..12],
        &config.as_str()[..14],
        &format!("app@{manifest}"),
    ] {
        assert_eq!(store.resolve_image(text).unwrap(), image, "{text}");
    }
    for (text, kind) in [
        ("nothing", ErrorKind::NotFound),
        ("app:2", ErrorKind::NotFound),
        ("ffff", ErrorKind::NotFound),
        ("%", ErrorKind::NotFound),
        ("", ErrorKind::NotFound),
    ] {
        assert_eq!(
            store.resolve_image(text).unwrap_err().kind(),
            kind,
            "{text}"
        );
    }
}

#[test]
fn a_short_id_that_fits_several_is_refused() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let start = |index: &u32| digest(&format!("manifest of {index}")).hex()[..4].to_owned();
    let mut seen = std::collections::BTreeMap::new();
    let alike = (0..).find_map(|index| Some((seen.insert(start(&index), index)?, index)));
    let (first, second) = alike.unwrap();
    for index in [first, second] {
        add(&lease, &index.to_string(), None, &[]);
    }
    let error = store.resolve_image(&start(&first)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_name_moves_to_the_newer_image() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let old = add(&lease, "old", None, &["app"]);
    store.advance(std::time::Duration::from_secs(1));
    let new = add(&lease, "new", None, &["app"]);
    let images = store.images().unwrap();
    assert_eq!(
        names(&images),
        [vec!["docker.io/library/app:latest".to_owned()], vec![]]
    );
    assert_eq!(
        (&images[0].manifest.digest, &images[1].manifest.digest),
        (&new, &old)
    );
    store.tag(&old, &name("app:old")).unwrap();
    assert_eq!(store.resolve_image("app:old").unwrap().manifest.digest, old);
    let missing = Digest::sha256("x");
    assert_eq!(
        store.tag(&missing, &name("x")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn an_image_goes_with_its_last_name() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let snapshot = layer(&lease, None, "layer");
    let manifest = add(&lease, "app", Some(&snapshot), &["app", "app:1"]);
    lease.release().unwrap();
    assert_eq!(
        store.prune_all(),
        Vec::<String>::new(),
        "the image needs all"
    );
    assert!(store.untag(&name("app")).unwrap().is_none());
    assert_eq!(
        store.untag(&name("app")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(store.untag(&name("app:1")).unwrap().is_some());
    assert_eq!(store.images().unwrap(), []);
    assert!(
        !store.has_blob(&manifest).unwrap(),
        "blobs of its own go at once"
    );
    assert!(store.snapshot(&snapshot).is_ok(), "layers become cache");
    assert_eq!(store.prune_all(), ["layer"]);
    store.assert_sound();
}

#[test]
fn an_image_without_name_lasts_until_the_next_prune() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let snapshot = layer(&lease, None, "layer");
    let manifest = add(&lease, "app", Some(&snapshot), &[]);
    lease.release().unwrap();
    assert!(store.resolve_image(manifest.hex()).is_ok());
    assert!(store.prune_all().contains(&"layer".to_owned()));
    assert_eq!(store.images().unwrap(), []);
    assert!(!store.has_blob(&manifest).unwrap());
    store.assert_sound();
}

#[test]
fn what_an_image_needs_must_be_stored() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let manifest = Descriptor::of(media_type::MANIFEST, b"not stored");
    let new = NewImage {
        manifest: &manifest,
        config: &Digest::sha256("not stored"),
        platform: "linux/amd64",
        created_at: None,
        snapshot: None,
        others: &[],
        blobs: &[],
    };
    assert_eq!(
        lease.add_image(&new, &[]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn an_index_holds_the_trees_of_all_its_images() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let (amd64, arm64) = (layer(&lease, None, "amd64"), layer(&lease, None, "arm64"));
    let index = Descriptor::of(media_type::INDEX, b"index");
    lease.put_blob(b"index").unwrap();
    let config = |text: &str| lease.put_blob(text.as_bytes()).unwrap();
    let (first, second) = (config("config amd64"), config("config arm64"));
    let new = NewImage {
        manifest: &index,
        config: &first,
        platform: "linux/amd64",
        created_at: None,
        snapshot: Some(&amd64),
        others: &[],
        blobs: &[],
    };
    lease.add_image(&new, &[name("app")]).unwrap();
    let other = |snapshot: Option<&SnapshotId>| PlatformImage {
        config: second.clone(),
        platform: "linux/arm64".to_owned(),
        snapshot: snapshot.cloned(),
    };
    // What is not unpacked yet is added, and unpacked later; the first image stays the first.
    for snapshot in [None, Some(&arm64), None] {
        let PlatformImage {
            config,
            platform,
            snapshot,
        } = other(snapshot);
        let new = NewImage {
            config: &config,
            platform: &platform,
            snapshot: snapshot.as_ref(),
            ..new.clone()
        };
        lease.add_image(&new, &[]).unwrap();
    }
    let all = NewImage {
        others: &[other(None)],
        ..new.clone()
    };
    lease.add_image(&all, &[name("app")]).unwrap();
    let image = store.resolve_image("app").unwrap();
    assert_eq!(image.snapshot, Some(amd64.clone()));
    assert_eq!(image.others, [other(Some(&arm64))]);
    assert_eq!(image.snapshot_of(&second), Some(arm64));
    assert_eq!(store.resolve_image(second.as_str()).unwrap(), image);
    lease.release().unwrap();
    assert_eq!(store.prune_all(), Vec::<String>::new());
    store.untag(&name("app")).unwrap();
    let mut gone = store.prune_all();
    gone.sort();
    assert_eq!(gone, ["amd64", "arm64"]);
    store.assert_sound();
}
