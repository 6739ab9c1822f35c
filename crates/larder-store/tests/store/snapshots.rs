use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use larder_oci::{Digest, Mount, MountKind};
use larder_store::{ErrorKind, Lease, NewLayer, SnapshotId, Snapshotter};
use larder_tree::diff::LayerOptions;

use crate::support::{TestStore, digest, layer, leftovers, lowers, new_snapshot, path, upper};

/// The names of the topmost directories' files, topmost layer first.
fn names(mount: &Mount) -> Vec<String> {
    let listing = |path: &std::path::PathBuf| {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.join("+")
    };
    lowers(mount).iter().map(listing).collect()
}

/// Mounts a view, runs `body` on it, and unmounts. Returns false where mounting isn't possible.
fn seen(mount: &Mount, body: impl FnOnce(&Path)) -> bool {
    let MountKind::Overlay { lowers, .. } = &mount.kind else {
        body(&lowers(mount)[0]);
        return true;
    };
    let target = tempfile::tempdir().unwrap();
    let lowers: Vec<_> = lowers
        .iter()
        .map(|layer| path(layer).display().to_string())
        .collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", lowers.join(":"))).unwrap();
    let flags = rustix::mount::MountFlags::RDONLY;
    if rustix::mount::mount(
        "overlay",
        target.path(),
        "overlay",
        flags,
        Some(options.as_c_str()),
    )
    .is_err()
    {
        println!("skipped: overlayfs can't be mounted here");
        return false;
    }
    body(target.path());
    rustix::mount::unmount(target.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    true
}

fn tar(lease: &Lease, id: &SnapshotId) -> (Vec<u8>, Digest) {
    let mut bytes = Vec::new();
    let (diff_id, length) = lease
        .store()
        .write_layer(id, &mut bytes, &LayerOptions::default())
        .unwrap();
    assert_eq!(length, bytes.len() as u64);
    assert_eq!(diff_id, Digest::sha256(&bytes));
    (bytes, diff_id)
}

#[test]
fn a_chain_is_mounted_topmost_first() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let a = layer(&lease, None, "a");
    let b = layer(&lease, Some(&a), "b");
    let c = layer(&lease, Some(&b), "c");
    assert_eq!(store.chain(&c).unwrap(), [a.clone(), b.clone(), c.clone()]);
    let view = store.view(&c).unwrap();
    assert!(view.readonly);
    assert_eq!(names(&view), ["c", "b", "a"]);
    assert_eq!(
        store.view(&a).unwrap().kind,
        MountKind::Bind {
            source: lowers(&store.view(&a).unwrap())[0].clone().into()
        }
    );
    let info = store.snapshot(&c).unwrap();
    assert_eq!(info.parents, [b]);
    assert_eq!(info.description, "c");
    assert!(info.size_bytes > 0);
    drop(lease);
    assert_eq!(leftovers(&store), Vec::<String>::new());
    store.assert_sound();
}

#[test]
fn an_active_snapshot_is_writable_above_its_parent() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let parent = layer(&lease, None, "a");
    let active = lease.prepare(&new_snapshot(Some(&parent), "b")).unwrap();
    let mount = active.mount().unwrap();
    assert!(!mount.readonly);
    let MountKind::Overlay {
        lowers,
        upper: Some(upper),
        userxattr: false,
    } = mount.kind
    else {
        panic!("an overlay is expected");
    };
    assert_eq!(lowers.len(), 1);
    assert!(upper.upper.is_dir() && upper.work.is_dir());
    let id = active.id().clone();
    assert_eq!(store.view(&id).unwrap_err().kind(), ErrorKind::NotFound);
    drop(active);
    assert!(!upper.upper.exists());
    assert_eq!(store.snapshot(&id).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_root_directory_keeps_mode_and_owner() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = lease.prepare(&new_snapshot(None, "base")).unwrap();
    let root = upper(&base.mount().unwrap());
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o1777)).unwrap();
    let base = base.commit().unwrap();
    let next = lease.prepare(&new_snapshot(Some(&base), "next")).unwrap();
    let root = upper(&next.mount().unwrap());
    assert_eq!(std::fs::metadata(root).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn a_parent_must_exist() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let gone: SnapshotId = "0".repeat(25).parse().unwrap();
    let error = lease.prepare(&new_snapshot(Some(&gone), "x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    drop(lease);
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn a_merge_stacks_layers_without_copying() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let lower = layer(&lease, Some(&base), "lower");
    let linked = layer(&lease, None, "linked");
    let merged = lease
        .merge(&[lower.clone(), linked.clone()], "merge")
        .unwrap();
    assert_eq!(
        names(&store.view(&merged).unwrap()),
        ["linked", "lower", "base"]
    );
    let info = store.snapshot(&merged).unwrap();
    assert_eq!(
        (info.size_bytes, info.parents),
        (0, vec![lower.clone(), linked.clone()])
    );
    assert_eq!(
        store.chain(&merged).unwrap(),
        [base.clone(), lower.clone(), linked.clone()]
    );

    let above = layer(&lease, Some(&merged), "above");
    let other = layer(&lease, None, "other");
    let links = lease.merge(&[linked.clone(), other], "links").unwrap();
    let again = lease.merge(&[above.clone(), links], "again").unwrap();
    let view = store.view(&again).unwrap();
    assert_eq!(
        names(&view),
        ["other", "linked", "above", "lower", "base"],
        "each layer once"
    );
    // Its marks are meant for what it was written upon.
    let error = lease.merge(&[linked, above], "no").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let options = LayerOptions::default();
    let error = store
        .write_layer(&merged, Vec::new(), &options)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    store.assert_sound();
}

#[test]
fn a_stack_has_layers_of_its_own_and_shows_another_tree() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    let upper = layer(&lease, Some(&base), "upper");
    let tree = layer(&lease, None, "tree");
    let stack = lease
        .stack(std::slice::from_ref(&upper), &tree, "stack")
        .unwrap();
    assert_eq!(store.chain(&stack).unwrap(), std::slice::from_ref(&upper));
    assert_eq!(names(&store.view(&stack).unwrap()), ["tree"]);
    assert!(!store.is_stackable(&stack).unwrap());
    assert!(store.is_stackable(&tree).unwrap());

    let above = layer(&lease, Some(&stack), "above");
    assert_eq!(store.chain(&above).unwrap(), [upper.clone(), above.clone()]);
    assert_eq!(names(&store.view(&above).unwrap()), ["above", "tree"]);

    let merged = lease.merge(&[above.clone(), base.clone()], "merged");
    assert_eq!(
        store.chain(&merged.unwrap()).unwrap(),
        [upper.clone(), above, base]
    );
    let error = lease.stack(&[], &tree, "nothing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    drop(lease);
    store.assert_sound();
    assert_eq!(store.prune_all().len(), 6);
    store.assert_sound();
}

#[test]
fn a_merge_of_nothing_is_an_empty_tree_without_layers() {
    for snapshotter in [
        Snapshotter::Native,
        Snapshotter::Overlay { userxattr: false },
    ] {
        let store = TestStore::with(snapshotter);
        let lease = store.lease().unwrap();
        let empty = lease.merge(&[], "nothing").unwrap();
        assert_eq!(store.chain(&empty).unwrap(), []);
        let view = store.view(&empty).unwrap();
        assert_eq!(names(&view), [""]);
        let mode = std::fs::metadata(&lowers(&view)[0]).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);
        let above = layer(&lease, Some(&empty), "above");
        assert_eq!(store.chain(&above).unwrap(), [above]);
        store.assert_sound();
    }
}

#[test]
fn a_layer_survives_packing_and_unpacking() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = lease.prepare(&new_snapshot(None, "base")).unwrap();
    let root = upper(&base.mount().unwrap());
    std::fs::create_dir_all(root.join("d/e")).unwrap();
    std::fs::set_permissions(root.join("d/e"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::write(root.join("d/file"), "old").unwrap();
    std::fs::write(root.join("gone"), "old").unwrap();
    symlink("d/file", root.join("link")).unwrap();
    let base = base.commit().unwrap();
    let (base_tar, base_diff) = tar(&lease, &base);
    store
        .set_diff_id(&base, &base_diff, base_tar.len() as u64)
        .unwrap();
    assert_eq!(
        store.snapshot(&base).unwrap().diff_id,
        Some(base_diff.clone())
    );

    let target = TestStore::new();
    let lease = target.lease().unwrap();
    let unpacked = lease
        .unpack(&base_diff, &base_tar[..], &mut |_| {})
        .unwrap();
    let new = NewLayer {
        parent: None,
        chain_id: &base_diff,
        blob: None,
        description: "pulled",
        created_at: None,
    };
    let id = lease.link(unpacked, &new).unwrap();
    let (again, _) = tar(&lease, &id);
    assert_eq!(again, base_tar);
    assert_eq!(
        lease.snapshot_by_chain_id(&base_diff).unwrap(),
        Some(id.clone())
    );
    assert_eq!(lease.snapshot_by_chain_id(&digest("other")).unwrap(), None);

    let second = lease
        .unpack(&base_diff, &base_tar[..], &mut |_| {})
        .unwrap();
    assert_eq!(
        lease.link(second, &new).unwrap(),
        id,
        "equal chains are shared"
    );
    drop(lease);
    assert_eq!(leftovers(&target), Vec::<String>::new());
    target.assert_sound();
}

#[test]
fn a_layer_that_is_not_what_it_should_be_is_refused() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let snapshot = layer(&lease, None, "a");
    let (bytes, diff_id) = tar(&lease, &snapshot);
    for (name, expected, stream) in [
        ("other diff ID", digest("x"), &bytes[..]),
        ("truncated", diff_id.clone(), &bytes[..700]),
        ("no tar", diff_id.clone(), &[1; 2048][..]),
    ] {
        let error = lease.unpack(&expected, stream, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
    }
    drop(lease);
    assert_eq!(leftovers(&store), Vec::<String>::new());
}

#[test]
fn directories_without_an_entry_keep_what_they_have_below() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = lease.prepare(&new_snapshot(None, "base")).unwrap();
    let root = upper(&base.mount().unwrap());
    std::fs::create_dir(root.join("tmp")).unwrap();
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    let base = base.commit().unwrap();

    let mut archive = vec![0; 512];
    archive[..5].copy_from_slice(b"tmp/f");
    archive[100..107].copy_from_slice(b"0000644");
    archive[124..135].copy_from_slice(b"00000000000");
    archive[156] = b'0';
    archive[148..156].fill(b' ');
    let sum: u32 = archive.iter().map(|byte| u32::from(*byte)).sum();
    archive[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive.extend([0; 1024]);
    let diff_id = Digest::sha256(&archive);
    let unpacked = lease.unpack(&diff_id, &archive[..], &mut |_| {}).unwrap();
    let new = NewLayer {
        parent: Some(&base),
        chain_id: &digest("chain"),
        blob: None,
        description: "pulled",
        created_at: None,
    };
    let id = lease.link(unpacked, &new).unwrap();
    let top = &lowers(&store.view(&id).unwrap())[0];
    assert_eq!(
        std::fs::metadata(top.join("tmp")).unwrap().mode() & 0o7777,
        0o1777
    );
}

/// `x` removed, the directory `d` replaced, `same/deep` added to, a hard link.
fn change(root: &Path) {
    let whiteout = |path: &Path| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::empty(),
            0,
        )
    };
    whiteout(&root.join("x")).unwrap();
    std::fs::create_dir(root.join("d")).unwrap();
    rustix::fs::setxattr(
        root.join("d"),
        "trusted.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    std::fs::write(root.join("d/new"), "new").unwrap();
    std::fs::hard_link(root.join("d/new"), root.join("linked")).unwrap();
    std::fs::create_dir(root.join("same")).unwrap();
    std::fs::write(root.join("same/deep"), "deep").unwrap();
}

fn assert_changed(root: &Path) {
    assert!(!root.join("x").exists());
    assert!(!root.join("d/old").exists());
    assert_eq!(std::fs::read_to_string(root.join("d/new")).unwrap(), "new");
    assert!(root.join("same/kept").exists() && root.join("same/deep").exists());
    let inode = |name| std::fs::metadata(root.join(name)).unwrap().ino();
    assert_eq!(inode("d/new"), inode("linked"));
}

fn changed_base(lease: &Lease) -> SnapshotId {
    let base = lease.prepare(&new_snapshot(None, "base")).unwrap();
    let root = upper(&base.mount().unwrap());
    for name in ["d", "same"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    for name in ["x", "d/old", "same/kept"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    base.commit().unwrap()
}

#[test]
fn chains_too_long_to_mount_are_flattened() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: whiteouts with trusted attributes need root");
        return;
    }
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let base = changed_base(&lease);
    let active = lease
        .prepare(&new_snapshot(Some(&base), "changes"))
        .unwrap();
    change(&upper(&active.mount().unwrap()));
    let mut top = active.commit().unwrap();
    for index in 0..520 {
        top = layer(&lease, Some(&top), &format!("layer{index}"));
    }
    let view = store.view(&top).unwrap();
    let directories = lowers(&view);
    assert!(directories.len() <= 500, "{}", directories.len());
    assert_changed(directories.last().unwrap());
    let mut listed: Vec<String> = names(&view)
        .iter()
        .flat_map(|names| names.split('+'))
        .filter(|name| name.starts_with("layer"))
        .map(str::to_owned)
        .collect();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), 520);
    assert_eq!(store.view(&top).unwrap(), view, "made once");
    assert_eq!(
        store.chain(&top).unwrap().len(),
        522,
        "exports see the layers"
    );

    drop(lease);
    store.assert_sound();
    assert_eq!(store.prune_all().len(), 522);
    store.assert_sound();
    assert_eq!(
        std::fs::read_dir(store.root().join("snapshots"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn whole_trees_serve_where_overlays_cannot() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: whiteouts with trusted attributes need root");
        return;
    }
    let overlay = TestStore::new();
    let lease = overlay.lease().unwrap();
    let base = changed_base(&lease);
    let (base_tar, base_diff) = tar(&lease, &base);
    let active = lease
        .prepare(&new_snapshot(Some(&base), "changes"))
        .unwrap();
    change(&upper(&active.mount().unwrap()));
    let top = active.commit().unwrap();
    let (top_tar, top_diff) = tar(&lease, &top);
    assert!(seen(&overlay.view(&top).unwrap(), assert_changed));

    let native = TestStore::with(Snapshotter::Native);
    let lease = native.lease().unwrap();
    let link = |bytes: &[u8], diff_id: &Digest, parent: Option<&SnapshotId>| {
        let unpacked = lease.unpack(diff_id, bytes, &mut |_| {}).unwrap();
        let new = NewLayer {
            parent,
            chain_id: diff_id,
            blob: None,
            description: "pulled",
            created_at: None,
        };
        lease.link(unpacked, &new).unwrap()
    };
    let base = link(&base_tar, &base_diff, None);
    let top = link(&top_tar, &top_diff, Some(&base));
    let source = lowers(&native.view(&top).unwrap()).remove(0);
    assert_changed(&source);
    assert!(
        !source
            .join("x")
            .symlink_metadata()
            .is_ok_and(|x| x.file_type().is_char_device())
    );
    assert_eq!(tar(&lease, &top).1, top_diff, "the same layer comes out");

    let next = lease.prepare(&new_snapshot(Some(&top), "next")).unwrap();
    let source = upper(&next.mount().unwrap());
    assert_changed(&source);
    std::fs::write(source.join("d/new"), "changed").unwrap();
    next.commit().unwrap();
    assert_changed(&lowers(&native.view(&top).unwrap())[0]);

    let other = layer(&lease, None, "other");
    let error = lease.merge(&[top, other], "merge").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "a tree is no layer");
    native.assert_sound();
}

#[test]
fn new_trees_are_kept_apart_on_the_disk() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let _active = lease.prepare(&new_snapshot(None, "any")).unwrap();
    let flags_of = |path: &Path| {
        let directory = std::fs::File::open(path).unwrap();
        rustix::fs::ioctl_getflags(&directory)
    };
    let wish = rustix::fs::IFlags::TOPDIR;
    let root = std::fs::File::open(store.root()).unwrap();
    if rustix::fs::ioctl_setflags(&root, wish).is_err() {
        println!("skipped: the file system can't be asked");
        return;
    }
    let tmp = std::fs::read_dir(store.root().join("tmp")).unwrap();
    for entry in tmp {
        assert!(flags_of(&entry.unwrap().path()).unwrap().contains(wish));
    }
}
