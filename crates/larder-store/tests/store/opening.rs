use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use larder_store::{Clock, ErrorKind, Options, PruneRequest, Snapshotter, Store};
use larder_tree::apply::Ownership;

use crate::support::{
    DAY, OVERLAY, TestStore, keep_diff_id, layer, lowers, new_snapshot, restart, upper,
};

fn options() -> Options {
    Options {
        clock: Clock::new(|| jiff::Timestamp::UNIX_EPOCH),
        snapshotter: OVERLAY,
        ownership: Ownership::Preserve,
        mounter: None,
        ceiling: None,
        settle_after: None,
    }
}

fn open(root: &Path) -> larder_store::Result<Store> {
    Store::open(root, options())
}

#[test]
fn a_store_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/root");
    let digest = open(&root)
        .unwrap()
        .lease()
        .unwrap()
        .put_blob(b"x")
        .unwrap();
    assert!(open(&root).unwrap().has_blob(&digest).unwrap());
    assert_eq!(
        std::fs::read_to_string(root.join("version")).unwrap(),
        "8\n"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&root).unwrap());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_store_from_before_images_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let (top, chain) = {
        let store = open(&root).unwrap();
        let lease = store.lease().unwrap();
        let base = layer(&lease, None, "base");
        let top = layer(&lease, Some(&base), "top");
        let chain = store.chain(&top).unwrap();
        (top, chain)
    };
    let db = rusqlite::Connection::open(root.join("larder.db")).unwrap();
    for table in ["snapshots", "blobs", "cache_mounts"] {
        for event in ["added", "resized", "removed"] {
            db.execute_batch(&format!("DROP TRIGGER {table}_{event}"))
                .unwrap();
        }
    }
    db.execute_batch(
        "ALTER TABLE snapshots DROP COLUMN packing; \
         DROP TABLE snapshot_devices; DROP TABLE totals; DROP TABLE collected; DROP INDEX cache_mounts_detached; \
         CREATE TABLE leases (id); CREATE TABLE held_snapshots (id); CREATE TABLE held_blobs (id); \
         PRAGMA user_version = 5",
    )
    .unwrap();
    drop(db);
    let store = open(&root).unwrap();
    let tight = [PruneRequest {
        max_used_space: 1,
        ..PruneRequest::default()
    }];
    let lease = store.lease().unwrap();
    assert!(lease.hold_snapshots(std::slice::from_ref(&top)).unwrap());
    assert_eq!(store.gc(&tight).unwrap(), 0, "the lease protects both");
    drop(lease);
    assert_eq!(store.chain(&top).unwrap(), chain);
    assert_eq!(lowers(&store.view(&top).unwrap()).len(), 2);
    assert_eq!(store.check().unwrap(), []);
    let forget = [PruneRequest {
        keep_duration: DAY,
        ..tight[0].clone()
    }];
    assert_eq!(store.gc(&forget).unwrap(), 0, "used just now");
    assert_eq!(store.du(&[]).unwrap().len(), 3);
}

#[test]
fn many_may_make_it_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::thread::scope(|scope| {
        for index in 0..8 {
            let root = &root;
            scope.spawn(move || {
                let store = open(root).unwrap();
                store.lease().unwrap().put_blob(&[index]).unwrap();
            });
        }
    });
    assert_eq!(open(&root).unwrap().check().unwrap(), []);
}

#[test]
fn what_cannot_be_a_store_is_refused_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    std::fs::create_dir(dir.path().join("damaged")).unwrap();
    std::fs::write(dir.path().join("damaged/larder.db"), [b'x'; 8192]).unwrap();
    let newer = dir.path().join("newer");
    open(&newer).unwrap();
    let db = rusqlite::Connection::open(newer.join("larder.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    for (path, kind) in [
        (Path::new("relative").to_owned(), ErrorKind::Invalid),
        (dir.path().join("file/root"), ErrorKind::Internal),
        (dir.path().join("damaged"), ErrorKind::Corrupt),
        (newer, ErrorKind::Invalid),
        ("/proc/larder".into(), ErrorKind::NotFound),
    ] {
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind(), kind, "{}: {error}", path.display());
    }
}

#[test]
fn a_directory_of_others_is_denied() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a read-only filesystem");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Tmpfs::mount(dir.path(), "size=4m", rustix::mount::MountFlags::RDONLY)
    else {
        return;
    };
    let error = open(&dir.path().join("root")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("state directory"), "{error}");
}

#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small filesystem");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Tmpfs::mount(dir.path(), "size=3m", rustix::mount::MountFlags::empty())
    else {
        return;
    };
    let store = open(&dir.path().join("root")).unwrap();
    let kept = store.lease().unwrap().put_blob(b"kept").unwrap();
    let lease = store.lease().unwrap();
    let mut failures = Vec::new();
    for index in 0..8_u8 {
        let active = lease.prepare(&new_snapshot(None, "filling")).unwrap();
        let file = upper(&active.mount().unwrap()).join("file");
        if std::fs::File::create(file)
            .unwrap()
            .write_all(&vec![index; 400_000])
            .is_ok()
        {
            failures.extend(active.commit().err());
        } else {
            failures.extend(lease.put_blob(&vec![index; 400_000]).err());
        }
        failures.extend(lease.put_blob(&vec![index; 300_000]).err());
    }
    assert!(!failures.is_empty());
    for error in &failures {
        assert_eq!(error.kind(), ErrorKind::FullDisk, "{error}");
    }
    drop(lease);
    assert_eq!(store.check().unwrap(), []);
    assert_eq!(store.read_blob(&kept, 9).unwrap(), b"kept");
    let freed = store.prune(
        &larder_store::PruneRequest {
            all: true,
            ..Default::default()
        },
        &mut |_| {},
    );
    assert!(freed.unwrap() > 400_000);
    store.lease().unwrap().put_blob(&vec![9; 400_000]).unwrap();
}

#[test]
fn many_small_records_can_be_pruned_from_a_full_disk() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small filesystem");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Tmpfs::mount(dir.path(), "size=16m", rustix::mount::MountFlags::empty())
    else {
        return;
    };
    let store = open(&dir.path().join("root")).unwrap();
    let lease = store.lease().unwrap();
    let mut top = None;
    for index in 0..250 {
        let name = index.to_string();
        let active = lease.prepare(&new_snapshot(top.as_ref(), &name)).unwrap();
        let file = upper(&active.mount().unwrap()).join(&name);
        std::fs::write(file, vec![1; 10_000]).unwrap();
        top = Some(active.commit().unwrap());
    }
    lease.release().unwrap();
    let mut ballast = std::fs::File::create(dir.path().join("ballast")).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}

    let mut count = 0;
    let all = larder_store::PruneRequest {
        all: true,
        ..Default::default()
    };
    store.prune(&all, &mut |_| count += 1).unwrap();
    assert_eq!(count, 250);
    assert_eq!(store.check().unwrap(), []);
    assert!(store.disk_space().unwrap().free_bytes > 250 * 8192);
}

#[test]
fn what_was_stored_is_settled_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        settle_after: Some(Duration::ZERO),
        ..options()
    };
    let store = Store::open(&dir.path().join("root"), options).unwrap();
    let db = rusqlite::Connection::open(store.root().join("larder.db")).unwrap();
    let unsettled = "SELECT (SELECT count(*) FROM snapshots WHERE unsettled IS NOT NULL) \
                     + (SELECT count(*) FROM blobs WHERE unsettled IS NOT NULL)";
    let count = || {
        db.query_row(unsettled, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    for round in 0..3 {
        let lease = store.lease().unwrap();
        layer(&lease, None, "layer");
        lease.put_blob(format!("blob {round}").as_bytes()).unwrap();
        let begin = Instant::now();
        while count() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(120), "nobody settles");
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_a_power_failure_may_have_taken_is_forgotten() {
    let store = TestStore::new();
    let lease = store.lease().unwrap();
    let safe = layer(&lease, None, "safe");
    let safe_blob = lease.put_blob(b"safe").unwrap();
    store.settle().unwrap();
    // Nobody knows what should be in it.
    let lost = layer(&lease, Some(&safe), "lost");
    let above = lease.merge(std::slice::from_ref(&lost), "above").unwrap();
    let changed = layer(&lease, Some(&safe), "changed");
    keep_diff_id(&store, &changed);
    let upon = layer(&lease, Some(&changed), "upon");
    keep_diff_id(&store, &upon);
    let blobs = ["empty", "longer", "other", "gone"].map(|name| {
        let digest = lease.put_blob(name.as_bytes()).unwrap();
        (
            name,
            store.root().join("blobs/sha256").join(digest.hex()),
            digest,
        )
    });
    drop(lease);
    restart(&store);
    let mut files = std::fs::read_dir(
        store
            .root()
            .join("snapshots")
            .join(changed.as_str())
            .join("fs"),
    );
    let file = files.as_mut().unwrap().next().unwrap().unwrap().path();
    std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(file)
        .unwrap();
    for (name, path, _) in &blobs {
        match *name {
            "empty" => std::fs::write(path, "").unwrap(),
            "longer" => std::fs::write(path, "longer than it was").unwrap(),
            "other" => std::fs::write(path, "0ther").unwrap(),
            _ => std::fs::remove_file(path).unwrap(),
        }
    }
    let store_again = store.again();
    assert!(store_again.snapshot(&safe).is_ok());
    assert!(store_again.has_blob(&safe_blob).unwrap());
    for id in [lost, above, changed, upon] {
        assert_eq!(
            store_again.snapshot(&id).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    for (name, _, digest) in blobs {
        assert!(!store_again.has_blob(&digest).unwrap(), "{name}");
    }
    assert_eq!(store_again.check().unwrap(), []);
}

#[test]
fn what_a_restart_left_whole_is_kept() {
    for snapshotter in [OVERLAY, Snapshotter::Native] {
        is_kept_if_whole(&TestStore::with(snapshotter));
    }
}

fn is_kept_if_whole(store: &TestStore) {
    let lease = store.lease().unwrap();
    let base = layer(&lease, None, "base");
    keep_diff_id(store, &base);
    let top = layer(&lease, Some(&base), "top");
    keep_diff_id(store, &top);
    let other = layer(&lease, None, "other");
    keep_diff_id(store, &other);
    let mut kept = vec![base, top, other];
    if store.is_stackable(&kept[2]).unwrap() {
        let inputs = [kept[0].clone(), kept[2].clone()];
        kept.push(lease.merge(&inputs, "merged").unwrap());
    }
    let blob = lease.put_blob(b"blob").unwrap();
    drop(lease);
    for _ in 0..2 {
        // They are still to be forced to the disk: a second restart finds them unsettled, too.
        restart(store);
        let again = store.again();
        for id in &kept {
            assert!(again.snapshot(id).is_ok());
        }
        assert!(again.has_blob(&blob).unwrap());
        assert_eq!(again.check().unwrap(), []);
    }
}

/// Tells a copy of this test program to be an ordinary user: the directory to work in.
const ORDINARY: &str = "LARDER_STORE_TEST_ORDINARY";

#[test]
fn an_ordinary_user_can_remove_what_nobody_may_write() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    if let Some(dir) = std::env::var_os(ORDINARY) {
        let store = open(&Path::new(&dir).join("root")).unwrap();
        let lease = store.lease().unwrap();
        let active = lease.prepare(&new_snapshot(None, "read-only")).unwrap();
        let sealed = upper(&active.mount().unwrap()).join("sealed");
        std::fs::create_dir_all(sealed.join("inner")).unwrap();
        std::fs::write(sealed.join("inner/file"), "").unwrap();
        for path in [sealed.join("inner"), sealed] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o111)).unwrap();
        }
        drop(active);
        lease.release().unwrap();
        assert_eq!(crate::support::leftovers(&store), Vec::<String>::new());
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let program = dir.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = "opening::an_ordinary_user_can_remove_what_nobody_may_write";
    let status = std::process::Command::new(program)
        .args(["--exact", name])
        .env(ORDINARY, dir.path())
        .current_dir(dir.path())
        .uid(65534)
        .gid(65534)
        .status()
        .unwrap();
    assert!(status.success());
}

struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(path: &'a Path, options: &str, flags: rustix::mount::MountFlags) -> Option<Self> {
        let options = std::ffi::CString::new(options).unwrap();
        match rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(options.as_c_str())) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!("skipped: cannot mount: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _unmounted = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
