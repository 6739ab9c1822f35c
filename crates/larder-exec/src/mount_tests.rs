use std::fs;
use std::path::PathBuf;

use larder_oci::{Layer, OverlayUpper};

use super::overlay::Layers;
use super::*;

/// Returns whether mounts can be made here; says so if not.
fn skipped() -> bool {
    let skip = crate::rootless::needs_user_namespace();
    if skip {
        println!("skipped: not root");
    }
    skip
}

/// Layers of one file each, named by its number, and what is needed to write.
struct Tree {
    temp: tempfile::TempDir,
    lowers: Vec<PathBuf>,
}

impl Tree {
    fn new(prefix: &str, count: usize) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let lowers: Vec<PathBuf> = (0..count)
            .map(|number| temp.path().join(format!("{prefix}{number}")))
            .collect();
        for (number, lower) in lowers.iter().enumerate() {
            fs::create_dir_all(lower).unwrap();
            fs::write(lower.join(number.to_string()), "").unwrap();
            fs::write(lower.join("top"), number.to_string()).unwrap();
        }
        for name in ["upper", "work"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        Self { temp, lowers }
    }

    fn layers(&self) -> Vec<Layer> {
        self.lowers.iter().cloned().map(Layer::from).collect()
    }

    fn upper(&self) -> OverlayUpper {
        OverlayUpper {
            upper: self.temp.path().join("upper"),
            work: self.temp.path().join("work"),
        }
    }

    fn mount(&self, upper: Option<OverlayUpper>, readonly: bool) -> Result<OwnedFd> {
        open(&larder_oci::Mount {
            kind: MountKind::Overlay {
                lowers: self.layers(),
                upper,
                userxattr: false,
            },
            readonly,
        })
    }
}

fn read(root: &OwnedFd, path: &str) -> rustix::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, path, flags, Mode::empty())?;
    Ok(std::io::read_to_string(fs::File::from(file)).unwrap())
}

fn write(root: &OwnedFd, path: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(root, path, flags, Mode::from_raw_mode(0o644)).map(drop)
}

#[test]
fn overlays_show_the_topmost_file() {
    if skipped() {
        return;
    }
    for (prefix, count) in [("l", 1), ("l", 2), ("l", 60), ("odd:na,me\\", 3)] {
        let tree = Tree::new(prefix, count);
        for upper in [None, Some(tree.upper())] {
            let writable = upper.is_some();
            let root = tree.mount(upper, false).unwrap();
            assert_eq!(read(&root, "top").unwrap(), "0", "{prefix} {count}");
            assert_eq!(read(&root, &(count - 1).to_string()).unwrap(), "");
            let refused = write(&root, "new");
            assert_eq!(refused.is_ok(), writable, "{prefix} {count}: {refused:?}");
        }
        let tree = Tree::new(prefix, count);
        let root = tree.mount(Some(tree.upper()), true).unwrap();
        assert_eq!(write(&root, "other"), Err(Errno::ROFS));
    }
}

#[test]
fn overlays_are_not_written_to_the_disk() {
    if skipped() {
        return;
    }
    let tree = Tree::new("l", 2);
    let root = tree.mount(Some(tree.upper()), false).unwrap();
    // Where overlayfs notes that it does not sync.
    let note = tree.upper().work.join("work/incompat/volatile");
    assert!(note.exists());
    drop(root);
    let error = tree.mount(Some(tree.upper()), false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::System, "{error}");
}

#[test]
fn overlays_of_long_paths_can_be_mounted() {
    if skipped() {
        return;
    }
    let tree = Tree::new(&format!("{}/{}/", "d".repeat(200), "e".repeat(200)), 2);
    let root = tree.mount(Some(tree.upper()), false).unwrap();
    assert_eq!(read(&root, "top").unwrap(), "0");
}

#[test]
fn overlays_are_limited() {
    if skipped() {
        return;
    }
    let mut tree = Tree::new("l", 1);
    tree.lowers.clear();
    let error = tree.mount(None, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    let mut tree = Tree::new("l", 500);
    let root = tree.mount(Some(tree.upper()), false).unwrap();
    assert_eq!(read(&root, "499").unwrap(), "");
    tree.lowers.push(tree.lowers[0].clone());
    let error = tree.mount(None, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    let message = "cannot mount an overlay of 501 layers: overlayfs takes 500";
    assert_eq!(error.to_string(), message);
}

#[test]
fn overlays_can_be_mounted_as_older_kernels_do() {
    if skipped() {
        return;
    }
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = table();
    for count in [2, 300] {
        let tree = Tree::new("odd:na,me\\", count);
        let upper = tree.upper();
        let layers = Layers {
            lowers: &tree.layers(),
            upper: Some(&upper),
            userxattr: false,
        };
        let root = layers.mount_by_options().unwrap();
        assert_eq!(read(&root, "top").unwrap(), "0");
        assert_eq!(read(&root, &(count - 1).to_string()).unwrap(), "");
        write(&root, "new").unwrap();
        assert!(upper.upper.join("new").exists());
    }
    assert_eq!(table(), before, "nothing shows in this process's tree");
}

#[test]
fn paths_beneath_detached_mounts_can_be_bound() {
    if skipped() {
        return;
    }
    let tree = Tree::new("l", 2);
    fs::create_dir(tree.lowers[0].join("sub")).unwrap();
    fs::write(tree.lowers[0].join("sub/file"), "inside").unwrap();
    std::os::unix::fs::symlink("/sub/file", tree.lowers[0].join("link")).unwrap();
    std::os::unix::fs::symlink("/../../etc", tree.lowers[0].join("out")).unwrap();
    let root = tree.mount(Some(tree.upper()), false).unwrap();
    let check = |path: &str| bind_beneath(root.as_fd(), path, Access::ReadOnly);
    assert_eq!(read(&check("/sub").unwrap(), "file").unwrap(), "inside");
    assert_eq!(write(&check("/sub").unwrap(), "new"), Err(Errno::ROFS));
    assert_eq!(read(&check("").unwrap(), "top").unwrap(), "0");
    let link = check("link").unwrap();
    assert!(rustix::fs::fstat(&link).unwrap().st_size == 6);
    for missing in ["no", "out/passwd", "sub/file/x"] {
        let error = check(missing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert_eq!(error.to_string(), format!("cannot bind `{missing}`"));
    }
    // As it is done before Linux 6.15.
    let found = bind_beneath(root.as_fd(), "sub", Access::ReadWrite).unwrap();
    drop(found);
    let sub = rustix::fs::openat(&root, "sub", OFlags::PATH, Mode::empty()).unwrap();
    let mount = isolated::clone_beneath(root.as_fd(), &sub).unwrap();
    assert_eq!(read(&mount, "file").unwrap(), "inside");
    write(&root, "still").unwrap();
}

#[test]
fn memory_is_mounted_with_its_size_and_mode() {
    if skipped() {
        return;
    }
    let root = tmpfs(Some(1 << 20), 0o1777).unwrap();
    let status = rustix::fs::fstat(&root).unwrap();
    assert_eq!(status.st_mode & 0o7777, 0o1777);
    let size = rustix::fs::fstatvfs(&root).unwrap();
    assert_eq!(size.f_blocks * size.f_frsize, 1 << 20);
}

#[test]
fn missing_directories_are_told_without_their_paths() {
    if skipped() {
        return;
    }
    let error = bind("/secret/host/path", Access::ReadWrite).unwrap_err();
    assert_eq!(error.to_string(), "cannot bind a directory");
}

#[test]
fn a_split_mount_is_one_tree_seen_twice() {
    if skipped() {
        return;
    }
    let tree = Tree::new("l", 2);
    let mut kept = tree.mount(Some(tree.upper()), false).unwrap();
    for round in 0..3 {
        let (keep, given) = split(kept).unwrap();
        let name = format!("new{round}");
        write(&given, &name).unwrap();
        assert_eq!(read(&keep, &name).unwrap(), "");
        // The given one goes to a run; the other is split again.
        drop(given);
        kept = keep;
    }
    let (one, other) = isolated::split(&kept).unwrap();
    assert_eq!(read(&one, "new0").unwrap(), read(&other, "new2").unwrap());
}

#[test]
fn images_are_layers_as_directories_are() {
    if skipped() {
        return;
    }
    let file = tempfile::tempfile().unwrap();
    let sink = larder_tree::erofs::Image::new(file.try_clone().unwrap());
    let attributes = larder_tree::copy::FileAttributes {
        owner: None,
        timestamp: None,
    };
    larder_tree::copy::mkfile(&sink, "/top", 0o644, b"image", attributes).unwrap();
    sink.finish().unwrap();
    let root = match image(&file, &[]) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            println!("skipped: {error}");
            return;
        }
        root => std::sync::Arc::new(root.unwrap()),
    };
    assert_eq!(read(&root, "top").unwrap(), "image");
    assert_eq!(write(&root, "new"), Err(Errno::ROFS));

    let tree = Tree::new("l", 1);
    let open = |upper: Option<OverlayUpper>| {
        let mut lowers = tree.layers();
        lowers.insert(0, Layer::Image(root.clone()));
        let kind = MountKind::Overlay {
            lowers,
            upper,
            userxattr: false,
        };
        let readonly = false;
        super::open(&larder_oci::Mount { kind, readonly }).unwrap()
    };
    // One mount of the image serves many.
    let (first, second) = (open(None), open(Some(tree.upper())));
    for overlay in [&first, &second] {
        assert_eq!(read(overlay, "top").unwrap(), "image");
        assert_eq!(read(overlay, "0").unwrap(), "");
    }
    write(&second, "new").unwrap();
    let alone = super::open(&larder_oci::Mount {
        kind: MountKind::Bind {
            source: Layer::Image(root.clone()),
        },
        readonly: true,
    });
    assert_eq!(read(&alone.unwrap(), "top").unwrap(), "image");
    // What is mounted outlives the handle of the image.
    drop((file, root));
    assert_eq!(read(&second, "top").unwrap(), "image");
}

#[test]
fn what_is_no_image_is_not_mounted() {
    if skipped() {
        return;
    }
    let file = tempfile::tempfile().unwrap();
    file.set_len(8192).unwrap();
    assert!(image(&file, &[]).is_err());
}
