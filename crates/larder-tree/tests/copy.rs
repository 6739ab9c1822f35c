//! Copies between trees, compared with what BuildKit makes of them, and the other file operations.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use larder_tree::ErrorKind;
use larder_tree::beneath::Root;
use larder_tree::checksum::content_digest;
use larder_tree::context::{ScanOptions, StatCache, Tree, scan};
use larder_tree::copy::{
    CopyOptions, FileAttributes, MkdirOptions, copy, mkdir, mkfile, remove, symlink as make_link,
};
use larder_tree::erofs::Image;

#[path = "erofs/support.rs"]
#[expect(dead_code, reason = "for the tests of images")]
mod images;

const TIME: u64 = 1_700_000_000;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    /// The context of the golden builds, with the times that they were made with.
    fn context() -> Self {
        let dir = Self::new();
        dir.write("a.txt", "alpha\n", 0o644);
        dir.write("b.txt", "beta\n", 0o644);
        dir.write("requirements.txt", "flask==3.0\n\n", 0o644);
        dir.write("run.sh", "#!/bin/sh\necho hi\n", 0o755);
        dir.write("src/main.py", "print('main')\n", 0o644);
        dir.write("src/notes.md", "# Notes\n", 0o644);
        dir.write("src/lib/data.bin", &"x".repeat(5000), 0o644);
        dir.write("src/lib/util.py", "x = 1\n", 0o644);
        dir
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.at(path);
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        let below = parents.iter().take_while(|dir| **dir != self.0.path());
        for dir in below.collect::<Vec<_>>().into_iter().rev() {
            fs::create_dir_all(dir).unwrap();
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn root(&self) -> Root {
        Root::open(self.0.path()).unwrap()
    }

    fn scan(&self) -> Tree {
        self.set_times();
        scan(self.root(), &ScanOptions::default(), StatCache::default()).unwrap()
    }

    fn view(&self) -> Tree {
        Tree::view(self.root()).unwrap()
    }

    /// Sets all times of modification to [`TIME`].
    fn set_times(&self) {
        let mut pending = vec![self.0.path().to_owned()];
        while let Some(path) = pending.pop() {
            let attributes = fs::symlink_metadata(&path).unwrap();
            if attributes.is_dir() {
                pending.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
            let time = rustix::fs::Timespec {
                tv_sec: TIME as i64,
                tv_nsec: 0,
            };
            let times = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
        }
    }

    /// Returns all entries as the golden layers tell them: type, mode, owner, size, whether the
    /// time is that of the source, name, target.
    fn listing(&self) -> Vec<String> {
        listing(self.0.path())
    }
}

fn listing(base: &Path) -> Vec<String> {
    let tree = Tree::view(Root::open(base).unwrap()).unwrap();
    let entries = tree.entries().unwrap();
    let lines = entries.iter().map(|entry| {
        let path = base.join(entry.path());
        let attributes = fs::symlink_metadata(&path).unwrap();
        let (kind, target) = match attributes.file_type() {
            kind if kind.is_dir() => ("5", String::new()),
            kind if kind.is_symlink() => (
                "2",
                format!(" -> {}", fs::read_link(&path).unwrap().display()),
            ),
            kind if kind.is_fifo() => ("6", String::new()),
            _ => ("0", String::new()),
        };
        let size = if kind == "0" { attributes.len() } else { 0 };
        let time = if attributes.mtime() == TIME as i64 {
            "then"
        } else {
            "now"
        };
        format!(
            "{kind} {:o} {}:{} {size} {time} {}{target}",
            attributes.mode() & 0o7777,
            attributes.uid(),
            attributes.gid(),
            entry.path().display(),
        )
    });
    lines.collect()
}

/// The options that the Dockerfile frontend gives to COPY.
fn dockerfile(src: &str, dest: &str) -> CopyOptions {
    CopyOptions {
        src: src.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyOptions::default()
    }
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[test]
fn copies_make_what_buildkit_makes() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root gives files away");
        return;
    }
    let octal = |mode| Some(larder_tree::copy::ModeChange::octal(mode));
    let cases: Vec<(CopyOptions, Vec<&str>)> = vec![
        (
            dockerfile("/a.txt", "/x/"),
            vec!["5 755 0:0 0 now x", "0 644 0:0 6 then x/a.txt"],
        ),
        (
            dockerfile("/a.txt", "/x/y"),
            vec!["5 755 0:0 0 now x", "0 644 0:0 6 then x/y"],
        ),
        (
            dockerfile("/src", "/app/"),
            vec![
                "5 755 0:0 0 then app",
                "5 755 0:0 0 then app/lib",
                "0 644 0:0 5000 then app/lib/data.bin",
                "0 644 0:0 6 then app/lib/util.py",
                "0 644 0:0 14 then app/main.py",
                "0 644 0:0 8 then app/notes.md",
            ],
        ),
        (
            CopyOptions {
                exclude_patterns: texts(&["*.md", "lib/*.bin"]),
                ..dockerfile("/src", "/s/")
            },
            vec![
                "5 755 0:0 0 then s",
                "5 755 0:0 0 then s/lib",
                "0 644 0:0 6 then s/lib/util.py",
                "0 644 0:0 14 then s/main.py",
            ],
        ),
        (
            CopyOptions {
                include_patterns: texts(&["src/lib/util.py"]),
                required_paths: texts(&["/src/lib/util.py"]),
                ..dockerfile("/", "/p/")
            },
            vec![
                "5 755 0:0 0 then p",
                "5 755 0:0 0 then p/src",
                "5 755 0:0 0 then p/src/lib",
                "0 644 0:0 6 then p/src/lib/util.py",
            ],
        ),
        (
            dockerfile("/*.txt", "/t/"),
            vec![
                "5 755 0:0 0 now t",
                "0 644 0:0 6 then t/a.txt",
                "0 644 0:0 5 then t/b.txt",
                "0 644 0:0 12 then t/requirements.txt",
            ],
        ),
        (
            dockerfile("/src/*/*.py", "/t/"),
            vec!["5 755 0:0 0 now t", "0 644 0:0 6 then t/util.py"],
        ),
        (
            CopyOptions {
                owner: Some((10, 20)),
                mode: octal(0o640),
                ..dockerfile("/a.txt", "/d/a")
            },
            vec!["5 755 10:20 0 now d", "0 640 10:20 6 then d/a"],
        ),
        (
            CopyOptions {
                mode: Some("u=rwX,go=rX".parse().unwrap()),
                ..dockerfile("/src/lib", "/s")
            },
            vec![
                "5 755 0:0 0 then s",
                "0 644 0:0 5000 then s/data.bin",
                "0 644 0:0 6 then s/util.py",
            ],
        ),
        (
            CopyOptions {
                mode: octal(0o711),
                owner: Some((1, 2)),
                dir_copy_contents: false,
                ..dockerfile("/src/lib", "/s")
            },
            vec![
                "5 711 1:2 0 then s",
                "0 711 1:2 5000 then s/data.bin",
                "0 711 1:2 6 then s/util.py",
            ],
        ),
        (
            CopyOptions {
                timestamp: Some(TIME as i64 * 1_000_000_000),
                ..dockerfile("/a.txt", "/x/y/")
            },
            vec![
                "5 755 0:0 0 then x",
                "5 755 0:0 0 then x/y",
                "0 644 0:0 6 then x/y/a.txt",
            ],
        ),
        (dockerfile("/none*", "/t/"), vec![]),
    ];
    let context = Dir::context();
    let source = context.scan();
    for (options, expected) in cases {
        let destination = Dir::new();
        if images::can_mount() {
            let test = images::TestImage::new();
            let now = rustix::fs::Timespec {
                tv_sec: TIME as i64 + 1,
                tv_nsec: 0,
            };
            let image =
                Image::upon(test.file(), images::lower_of(&destination.at("")), now).unwrap();
            copy(&source, &image, &options).unwrap();
            image.finish().unwrap();
            let mounted = test.mount();
            assert_eq!(listing(mounted.path()), expected, "image: {options:?}");
        }
        copy(&source, &destination.root(), &options).unwrap();
        assert_eq!(destination.listing(), expected, "{options:?}");
    }
}

#[test]
fn links_are_followed_when_named_and_kept_beneath() {
    let context = Dir::context();
    fs::create_dir(context.at("links")).unwrap();
    symlink("a.txt", context.at("link")).unwrap();
    symlink("nowhere", context.at("links/dangling")).unwrap();
    symlink("../b.txt", context.at("links/in")).unwrap();
    symlink("/src/lib", context.at("to-lib")).unwrap();
    let source = context.scan();
    let destination = Dir::new();
    let root = destination.root();
    for (src, dest) in [
        ("/link", "/l"),
        ("/links", "/m/"),
        ("/to-lib", "/n"),
        ("/lin?", "/o/"),
    ] {
        copy(&source, &root, &dockerfile(src, dest)).unwrap();
    }
    let names: Vec<String> = destination
        .listing()
        .iter()
        .map(|line| line.splitn(6, ' ').nth(5).unwrap().to_owned())
        .collect();
    let expected = [
        "l",
        "m",
        "m/dangling -> nowhere",
        "m/in -> ../b.txt",
        "n",
        "n/data.bin",
        "n/util.py",
        "o",
        "o/link",
    ];
    assert_eq!(names, expected);
    let unfollowed = CopyOptions {
        follow_symlink: false,
        ..dockerfile("/link", "/kept")
    };
    copy(&source, &root, &unfollowed).unwrap();
    assert_eq!(
        fs::read_link(destination.at("kept")).unwrap(),
        Path::new("a.txt")
    );
}

#[test]
fn links_of_the_destination_do_not_lead_out_of_it() {
    let outside = Dir::new();
    let source = Dir::context().scan_owned();
    let destination = Dir::new();
    fs::create_dir_all(destination.at("real/deep")).unwrap();
    symlink(outside.0.path(), destination.at("absolute")).unwrap();
    symlink("../../../real", destination.at("relative")).unwrap();
    symlink("/real/deep", destination.at("inside")).unwrap();
    let root = destination.root();
    for dest in ["/absolute/", "/relative/x/", "/inside/", "/inside/../up/"] {
        copy(&source.1, &root, &dockerfile("/a.txt", dest)).unwrap();
    }
    assert_eq!(fs::read_dir(outside.0.path()).unwrap().count(), 0);
    for path in ["real/x/a.txt", "real/deep/a.txt", "up/a.txt"] {
        assert!(destination.at(path).is_file(), "{path}");
    }
}

impl Dir {
    fn scan_owned(self) -> (Self, Tree) {
        let tree = self.scan();
        (self, tree)
    }
}

#[test]
fn what_is_in_the_way_is_replaced_or_refused() {
    let context = Dir::context();
    let source = context.scan();
    let prepare = || {
        let destination = Dir::new();
        destination.write("file", "old", 0o600);
        destination.write("dir/a.txt/x", "old", 0o600);
        destination.write("tree/lib", "old", 0o600);
        destination.write("merged/lib/other", "old", 0o600);
        symlink("/file", destination.at("to-file")).unwrap();
        destination
    };
    let cases = [
        ("/a.txt", "/file", Ok("file")),
        ("/a.txt", "/to-file", Ok("file")),
        ("/src", "/merged", Ok("merged/lib/util.py")),
        ("/src", "/file", Err("cannot copy to non-directory: /file")),
        (
            "/src",
            "/tree",
            Err("cannot copy to non-directory: /tree/lib"),
        ),
        (
            "/a.txt",
            "/file/",
            Err("cannot copy to non-directory: /file"),
        ),
        (
            "/a.txt",
            "/file/x",
            Err("cannot copy to non-directory: /file"),
        ),
        (
            "/a.txt",
            "/dir/",
            Err("cannot replace to directory `/dir/a.txt` with file"),
        ),
        ("/nofile", "/x", Err("\"/nofile\": not found")),
        ("/a.txt/x", "/x", Err("\"/a.txt/x\": not found")),
    ];
    for (src, dest, expected) in cases {
        let destination = prepare();
        let result = copy(&source, &destination.root(), &dockerfile(src, dest));
        match expected {
            Ok(path) => {
                result.unwrap();
                assert_ne!(
                    fs::read_to_string(destination.at(path)).unwrap(),
                    "old",
                    "{path}"
                );
                assert!(destination.at("merged/lib/other").exists());
            }
            Err(message) => assert_eq!(result.unwrap_err().to_string(), message),
        }
    }
    for (src, dest, path) in [
        ("/src", "/tree", "tree/lib/util.py"),
        ("/a.txt", "/dir/", "dir/a.txt"),
    ] {
        let destination = prepare();
        let options = CopyOptions {
            always_replace_existing_dest_paths: true,
            ..dockerfile(src, dest)
        };
        copy(&source, &destination.root(), &options).unwrap();
        assert!(destination.at(path).is_file(), "{path}");
    }
    let destination = prepare();
    let options = CopyOptions {
        create_dest_path: false,
        ..dockerfile("/a.txt", "/no/such/dir")
    };
    let error = copy(&source, &destination.root(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let options = CopyOptions {
        allow_empty_wildcard: false,
        ..dockerfile("/none*", "/x")
    };
    let error = copy(&source, &destination.root(), &options).unwrap_err();
    assert_eq!(error.to_string(), "/none* not found");
}

#[test]
fn special_files_hard_links_and_holes_are_kept() {
    let context = Dir::new();
    context.write("d/one", "shared", 0o4755);
    fs::hard_link(context.at("d/one"), context.at("d/two")).unwrap();
    fs::create_dir(context.at("d/e")).unwrap();
    fs::hard_link(context.at("d/one"), context.at("d/e/three")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(rustix::fs::CWD, context.at("d/pipe"), fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(context.at("d/socket")).unwrap();
    let sparse = fs::File::create(context.at("d/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 32 << 20).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let has_xattrs = rustix::fs::fsetxattr(&sparse, "user.larder", b"1", flags).is_ok();
    if has_xattrs {
        rustix::fs::fsetxattr(&sparse, "user.overlay.opaque", b"y", flags).unwrap();
    }
    let destination = Dir::new();
    copy(
        &context.view(),
        &destination.root(),
        &dockerfile("/d", "/d"),
    )
    .unwrap();
    let attributes = |name: &str| fs::symlink_metadata(destination.at(name)).unwrap();
    assert_eq!(attributes("d/one").ino(), attributes("d/two").ino());
    assert_eq!(attributes("d/one").ino(), attributes("d/e/three").ino());
    assert_eq!(attributes("d/one").mode() & 0o7777, 0o4755);
    assert!(attributes("d/pipe").file_type().is_fifo());
    assert!(!destination.at("d/socket").exists());
    assert_eq!(attributes("d/sparse").len(), 64 << 20);
    assert!(
        attributes("d/sparse").blocks() * 512 < 1 << 20,
        "the holes are kept"
    );
    let copied = fs::read(destination.at("d/sparse")).unwrap();
    assert_eq!(&copied[32 << 20..(32 << 20) + 6], b"middle");
    if has_xattrs {
        let mut value = [0; 8];
        let path = destination.at("d/sparse");
        assert_eq!(
            rustix::fs::getxattr(&path, "user.larder", &mut value[..]),
            Ok(1)
        );
        assert!(rustix::fs::getxattr(&path, "user.overlay.opaque", &mut value[..]).is_err());
    } else {
        println!("skipped: no extended attributes here");
    }
}

#[test]
fn a_file_that_changed_is_not_copied() {
    // Unseen by the digest: only the stamp of the scan tells.
    let context = Dir::context();
    let source = context.scan();
    context.write("src/main.py", "print('changed')\n", 0o644);
    let error = copy(&source, &Dir::new().root(), &dockerfile("/src", "/s")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert_eq!(
        error.to_string(),
        "file changed during the build: `src/main.py`"
    );

    // Young files are hashed again while they are copied, and are good if nothing changed.
    let context = Dir::context();
    let source = context.scan();
    content_digest(&source, &[]).unwrap();
    let destination = Dir::new();
    let stats = copy(&source, &destination.root(), &dockerfile("/", "/")).unwrap();
    assert_eq!(stats.file_count, 8);
    let copied = destination.scan();
    assert_eq!(
        content_digest(&copied, &[]).unwrap(),
        content_digest(&source, &[]).unwrap()
    );
}

#[test]
fn what_was_digested_is_copied_whatever_became_of_the_file() {
    let context = Dir::context();
    let source = context.scan();
    content_digest(&source, &[]).unwrap();
    let expected = fs::read(context.at("src/main.py")).unwrap();
    context.write("src/main.py", "print('changed')\n", 0o644);
    let destination = Dir::new();
    let options = dockerfile("/src", "/s");
    copy(&source, &destination.root(), &options).unwrap();
    let copied = fs::read(destination.at("s/main.py")).unwrap();
    assert_eq!(copied, expected);
    // It is kept for one copy only.
    let error = copy(&source, &Dir::new().root(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
}

#[test]
fn a_young_file_must_have_the_digest_that_entered_the_key() {
    // A stat cache with a wrong digest stands for a change that the stamp does not show.
    let context = Dir::context();
    context.set_times();
    let scan_at = |started_at_nanos, cache| {
        let options = ScanOptions {
            started_at_nanos,
            ..ScanOptions::default()
        };
        scan(context.root(), &options, cache).unwrap()
    };
    let later = scan_at(i64::MAX, StatCache::default());
    content_digest(&later, &[]).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("stat-cache");
    later.updated_cache().unwrap().save(&file).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    for digest in bytes[16..].chunks_mut(88) {
        digest[87] ^= 1;
    }
    let crc = crc32fast::hash(&bytes[16..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    fs::write(&file, bytes).unwrap();
    let cache = StatCache::load(&file);
    assert!(!cache.is_empty());

    let young = scan_at(0, cache);
    content_digest(&young, &[]).unwrap();
    let error = copy(&young, &Dir::new().root(), &dockerfile("/a.txt", "/")).unwrap_err();
    assert_eq!(error.to_string(), "file changed during the build: `a.txt`");
}

#[test]
fn archives_are_unpacked_on_request() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pack.tar.gz");
    let context = Dir::context();
    fs::copy(golden, context.at("pack.tar.gz")).unwrap();
    let source = context.scan();
    let destination = Dir::new();
    let unpack = |src, dest| CopyOptions {
        unpack_archives: true,
        owner: (!rustix::process::geteuid().is_root()).then(|| {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            (uid.as_raw(), gid.as_raw())
        }),
        ..dockerfile(src, dest)
    };
    copy(
        &source,
        &destination.root(),
        &unpack("/pack.tar.gz", "/un/"),
    )
    .unwrap();
    copy(
        &source,
        &destination.root(),
        &dockerfile("/pack.tar.gz", "/raw/"),
    )
    .unwrap();
    copy(&source, &destination.root(), &unpack("/a.txt", "/plain/")).unwrap();
    let one = fs::metadata(destination.at("un/in/one")).unwrap();
    assert_eq!(
        (one.len(), one.mode() & 0o7777, one.mtime()),
        (1, 0o604, 1_600_000_000)
    );
    if rustix::process::geteuid().is_root() {
        assert_eq!((one.uid(), one.gid()), (3, 4));
    }
    assert_eq!(
        fs::metadata(destination.at("raw/pack.tar.gz"))
            .unwrap()
            .len(),
        134
    );
    assert!(destination.at("plain/a.txt").is_file());
}

#[test]
fn a_large_tree_is_copied_whole() {
    let context = Dir::new();
    for index in 0..600 {
        context.write(
            &format!("d{}/e{}/f{index}", index % 7, index % 60),
            &index.to_string(),
            0o644,
        );
    }
    let source = context.scan();
    let destination = Dir::new();
    let stats = copy(&source, &destination.root(), &dockerfile("/", "/out/")).unwrap();
    assert_eq!(stats.file_count, 600);
    let copied = destination.view();
    let out = copied
        .resolve(b"out", false)
        .unwrap()
        .unwrap()
        .with_descendants()
        .unwrap();
    assert_eq!(out.len(), source.entries().unwrap().len() + 1);
    for index in 0..600 {
        let path = destination.at(&format!("out/d{}/e{}/f{index}", index % 7, index % 60));
        assert_eq!(fs::read_to_string(path).unwrap(), index.to_string());
    }
}

#[test]
fn directories_files_and_links_are_made() {
    let dir = Dir::new();
    let root = dir.root();
    let attributes = FileAttributes {
        owner: None,
        timestamp: Some(TIME as i64 * 1_000_000_000),
    };
    let options = MkdirOptions {
        mode: 0o750,
        make_parents: true,
        attributes,
    };
    mkdir(&root, "/a/b", &options).unwrap();
    mkdir(&root, "/a/b", &options).unwrap();
    let single = MkdirOptions {
        make_parents: false,
        ..options
    };
    mkdir(&root, "/a/c", &single).unwrap();
    assert!(mkdir(&root, "/x/y", &single).is_err());
    mkfile(&root, "/a/f", 0o640, b"text", attributes).unwrap();
    mkfile(&root, "/a/f", 0o604, b"more text", attributes).unwrap();
    assert!(mkfile(&root, "/none/f", 0o644, b"", attributes).is_err());
    assert!(mkfile(&root, "/", 0o644, b"", attributes).is_err());
    assert!(mkfile(&root, "/a/b", 0o644, b"", attributes).is_err());
    make_link(&root, "../../etc", "/a/l", attributes).unwrap();
    assert!(make_link(&root, "x", "/a/f", attributes).is_err());
    // Through the link, which leads nowhere outside.
    mkdir(&root, "/etc", &options).unwrap();
    mkfile(&root, "/a/l/passwd", 0o644, b"root", attributes).unwrap();
    let owner = format!(
        "{}:{}",
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw()
    );
    let expected = [
        format!("5 750 {owner} 0 now a"),
        format!("5 750 {owner} 0 then a/b"),
        format!("5 750 {owner} 0 then a/c"),
        format!("0 604 {owner} 9 then a/f"),
        format!("2 777 {owner} 0 then a/l -> ../../etc"),
        format!("5 750 {owner} 0 now etc"),
        format!("0 644 {owner} 4 then etc/passwd"),
    ];
    assert_eq!(dir.listing(), expected);
}

#[test]
fn what_is_named_is_removed_and_no_more() {
    let dir = Dir::new();
    for path in ["keep/x", "a.log", "b.log", "sub/c.log", "tree/deep/y"] {
        dir.write(path, "", 0o644);
    }
    symlink("keep", dir.at("link")).unwrap();
    symlink("nowhere", dir.at("dangling")).unwrap();
    let root = dir.root();
    remove(&root, "/*.log", false, true).unwrap();
    remove(&root, "/none*", false, true).unwrap();
    remove(&root, "/tree", false, false).unwrap();
    remove(&root, "link", false, false).unwrap();
    remove(&root, "/dangling", false, false).unwrap();
    remove(&root, "/gone", true, false).unwrap();
    let error = remove(&root, "/gone", false, false).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::NotFound, "\"/gone\": not found".to_owned())
    );
    assert!(remove(&root, "/../", true, false).is_err());
    let tree = dir.view();
    let left: Vec<PathBuf> = tree
        .entries()
        .unwrap()
        .iter()
        .map(|e| e.path().to_owned())
        .collect();
    let expected: Vec<PathBuf> = ["keep", "keep/x", "sub", "sub/c.log"]
        .map(PathBuf::from)
        .into();
    assert_eq!(left, expected);
}
