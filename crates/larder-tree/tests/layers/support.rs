//! Trees made by hand, and what is found in a tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use larder_tree::apply::{ApplyOptions, ApplyStats, LayerForm, Warning, apply_layer};
use larder_tree::beneath::Root;
use larder_tree::diff::{LayerOptions, Style, write_layer};
use larder_tree::tar::{Header, Kind, Reader, Writer};
#[path = "../erofs/support.rs"]
#[expect(dead_code, reason = "for the tests of images")]
mod images;

use rustix::fs::{CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// A time without nanoseconds.
pub(crate) const TIME: i64 = 1_700_000_000;

/// Returns whether the test can make devices and files of others; says so if not.
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: needs root to make devices and to give files to others");
    }
    is_root
}

/// Returns whether `program` is there; says so if not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        println!("skipped: `{program}` isn't installed");
    }
    found
}

/// Runs a program in `dir` with `input`; returns its output.
pub(crate) fn run(dir: &Path, program: &str, args: &[&OsStr], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} failed");
    output.stdout
}

/// A tree under construction in a temporary directory.
pub(crate) struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> Root {
        Root::open(self.dir.path()).unwrap()
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn dir(&self, path: impl AsRef<Path>, mode: u32) -> &Self {
        let at = self.at(path);
        std::fs::create_dir(&at).unwrap();
        std::fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn file(&self, path: impl AsRef<Path>, mode: u32, text: impl AsRef<[u8]>) -> &Self {
        let at = self.at(path);
        std::fs::write(&at, text).unwrap();
        std::fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
        self.time(at, TIME)
    }

    pub(crate) fn symlink(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> &Self {
        std::os::unix::fs::symlink(target, self.at(&path)).unwrap();
        self.time(path, TIME)
    }

    pub(crate) fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> &Self {
        std::fs::hard_link(self.at(target), self.at(path)).unwrap();
        self
    }

    pub(crate) fn node(&self, path: impl AsRef<Path>, kind: FileType, device: u64) -> &Self {
        rustix::fs::mknodat(
            CWD,
            self.at(&path),
            kind,
            Mode::from_raw_mode(0o644),
            device,
        )
        .unwrap();
        self.time(path, TIME)
    }

    pub(crate) fn whiteout(&self, path: impl AsRef<Path>) -> &Self {
        self.node(path, FileType::CharacterDevice, 0)
    }

    pub(crate) fn xattr(&self, path: impl AsRef<Path>, name: &str, value: &[u8]) -> &Self {
        rustix::fs::lsetxattr(self.at(path), name, value, XattrFlags::empty()).unwrap();
        self
    }

    pub(crate) fn owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> &Self {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(CWD, self.at(path), uid, gid, flags).unwrap();
        self
    }

    pub(crate) fn time(&self, path: impl AsRef<Path>, seconds: i64) -> &Self {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, self.at(path), &times, flags).unwrap();
        self
    }

    /// Gives every directory the usual time: making entries has changed it.
    pub(crate) fn settle(&self) -> &Self {
        for (path, found) in self.found() {
            if found.kind == FileType::Directory {
                self.time(path, TIME);
            }
        }
        self
    }

    /// Describes all entries by their paths.
    pub(crate) fn found(&self) -> BTreeMap<PathBuf, Found> {
        let mut found = BTreeMap::new();
        collect(self.path(), Path::new(""), &mut found);
        found
    }

    /// Returns the layer of this tree's changes.
    pub(crate) fn layer(&self, lower: Option<&Tree>, style: Style) -> Vec<u8> {
        let mut layer = Vec::new();
        let lower = lower.map(Tree::root);
        let options = LayerOptions::default();
        let stats = write_layer(&self.root(), lower.as_ref(), style, &mut layer, &options).unwrap();
        assert_eq!(stats.size_bytes, layer.len() as u64);
        assert_eq!(stats.entries, headers(&layer).len() as u64);
        layer
    }

    /// Applies a layer and returns the warnings, too.
    pub(crate) fn try_apply(
        &self,
        layer: &[u8],
        form: LayerForm,
    ) -> (larder_tree::Result<ApplyStats>, Vec<Warning>) {
        let mut warnings = Vec::new();
        let mut on_warning = |warning| warnings.push(warning);
        let options = ApplyOptions::new(&mut on_warning);
        let is_new = std::fs::read_dir(self.path()).unwrap().next().is_none();
        let result = apply_layer(&self.root(), layer, form, options);
        if form == LayerForm::Overlay && is_new && images::can_mount() {
            images::assert_image_as(layer, self.path(), &result, &warnings);
        }
        (result, warnings)
    }

    /// Applies a layer that has nothing to warn of.
    pub(crate) fn apply(&self, layer: &[u8], form: LayerForm) -> ApplyStats {
        let (result, warnings) = self.try_apply(layer, form);
        assert_eq!(warnings, []);
        result.unwrap()
    }
}

/// What is found at a path. Times of directories are left out where trees are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: Option<(i64, i64)>,
    /// Contents of a file, target of a symlink, number of a device.
    pub(crate) data: Vec<u8>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

fn collect(base: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Found>) {
    for entry in std::fs::read_dir(base.join(path)).unwrap() {
        let path = path.join(entry.unwrap().file_name());
        let at = base.join(&path);
        let metadata = at.symlink_metadata().unwrap();
        let kind = FileType::from_raw_mode(metadata.mode());
        let is_device =
            metadata.file_type().is_char_device() || metadata.file_type().is_block_device();
        let data = if metadata.is_file() {
            std::fs::read(&at).unwrap()
        } else if metadata.is_symlink() {
            at.read_link()
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if is_device {
            metadata.rdev().to_string().into_bytes()
        } else {
            Vec::new()
        };
        let entry = Found {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: (!metadata.is_dir()).then(|| (metadata.mtime(), metadata.mtime_nsec())),
            data,
            xattrs: xattrs(&at),
        };
        if metadata.is_dir() {
            collect(base, &path, found);
        }
        found.insert(path, entry);
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0_u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"));
    names
        .map(|name| {
            let mut value = vec![0_u8; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (String::from_utf8(name.to_vec()).unwrap(), value)
        })
        .collect()
}

/// Returns whether extended attributes of users can be set in temporary directories.
pub(crate) fn has_user_xattrs() -> bool {
    let tree = Tree::new();
    let dir = std::fs::File::open(tree.path()).unwrap();
    let set = rustix::fs::fsetxattr(dir.as_fd(), "user.test", b"1", XattrFlags::empty());
    if set.is_err() {
        println!("skipped: the file system has no extended attributes of users");
    }
    set.is_ok()
}

/// Packs entries as they are given.
pub(crate) fn archive(entries: &[(Header, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (header, data) in entries {
        let mut header = header.clone();
        if header.kind == Kind::File {
            header.size = data.len() as u64;
        }
        writer.append(&header).unwrap();
        writer.write_all(data).unwrap();
    }
    writer.finish().unwrap()
}

/// Reads all headers of an archive.
pub(crate) fn headers(archive: &[u8]) -> Vec<Header> {
    let mut reader = Reader::new(archive);
    let mut headers = Vec::new();
    while let Some(header) = reader.next_entry().unwrap() {
        headers.push(header);
    }
    headers
}

/// Describes an entry in one line: type, mode, owner, size, mtime, name, link.
pub(crate) fn line(header: &Header) -> String {
    let (flag, link) = match &header.kind {
        Kind::File => (0, None),
        Kind::HardLink(target) => (1, Some(target)),
        Kind::Symlink(target) => (2, Some(target)),
        Kind::CharDevice(..) => (3, None),
        Kind::BlockDevice(..) => (4, None),
        Kind::Directory => (5, None),
        Kind::Fifo => (6, None),
    };
    let link = link.map_or(String::new(), |target| format!(" -> {}", target.display()));
    format!(
        "{flag} {:o} {}:{} {} {} {}{link}\n",
        header.mode,
        header.uid,
        header.gid,
        header.size,
        header.mtime.tv_sec,
        header.path.display().to_string().trim_end_matches('/'),
    )
}

/// Lists an archive, one line an entry.
pub(crate) fn listing(archive: &[u8]) -> String {
    headers(archive).iter().map(line).collect()
}
