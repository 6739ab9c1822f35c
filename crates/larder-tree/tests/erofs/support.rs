//! Images that are mounted and checked, and trees that are compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use larder_testkit::{report_skip, unpacked};
use larder_tree::apply::{ApplyOptions, ApplyStats, LayerForm, Warning, apply_image, apply_layer};
use larder_tree::beneath::Root;
use larder_tree::diff::{LayerOptions, Style, Upper, write_layer};
use larder_tree::erofs::{Image, Reader, Summary};
use larder_tree::overlay::{Layer, Lower};
use larder_tree::sink::Sink;
use larder_tree::tar::{self, Header, Kind};
use rustix::fs::{CWD, FileType};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

/// A time without nanoseconds.
pub(crate) const TIME: i64 = 1_700_000_000;

/// Returns whether images can be mounted here; says so if not.
pub(crate) fn can_mount() -> bool {
    static CAN: OnceLock<Result<(), String>> = OnceLock::new();
    let can = CAN.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root to mount images".to_owned());
        }
        let image = TestImage::new();
        let finished = image.begin().finish();
        finished.map_err(|error| error.to_string())?;
        let mounted = image.try_mount(&[]);
        mounted
            .map(drop)
            .map_err(|error| format!("the kernel mounts no EROFS from a file: {error}"))
    });
    if let Err(reason) = can {
        report_skip(reason);
    }
    can.is_ok()
}

/// The file of an image, in a directory of its own.
pub(crate) struct TestImage {
    dir: tempfile::TempDir,
}

/// An image that is mounted. Goes with this value.
pub(crate) struct Mounted {
    at: PathBuf,
}

impl TestImage {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub(crate) fn file(&self) -> File {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        options.open(self.path()).unwrap()
    }

    pub(crate) fn file_again(&self) -> File {
        File::open(self.path()).unwrap()
    }

    pub(crate) fn begin(&self) -> Image {
        Image::new(self.file())
    }

    fn try_mount(&self, devices: &[PathBuf]) -> rustix::io::Result<Mounted> {
        let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", self.path())?;
        for device in devices {
            fsconfig_set_string(&context, "device", device)?;
        }
        fsconfig_create(&context)?;
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        let at = self.dir.path().join("mnt");
        move_mount(
            &mount,
            "",
            CWD,
            &at,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        Ok(Mounted { at })
    }

    /// Mounts a finished image, which Debian's tools have found sound.
    pub(crate) fn mount(&self) -> Mounted {
        self.mount_with(&[])
    }

    /// As [`mount`](Self::mount), of an image that has extra devices.
    pub(crate) fn mount_with(&self, devices: &[PathBuf]) -> Mounted {
        check_with(&self.path(), devices);
        self.try_mount(devices).unwrap()
    }

    /// Mounts a finished image that would take the tools too long, or is too deep for them.
    pub(crate) fn mount_unchecked(&self) -> Mounted {
        self.try_mount(&[]).unwrap()
    }
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.at.join(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }
}

/// Mounts an overlay of `lowers`, the uppermost first, at the empty directory `at`; with `upper` and
/// a work directory it can be written to.
pub(crate) fn mount_overlay(lowers: &[&Path], upper: Option<[&Path; 2]>, at: &Path) -> Mounted {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in lowers {
        fsconfig_set_string(&context, "lowerdir+", *lower).unwrap();
    }
    if let Some([upper, work]) = upper {
        fsconfig_set_string(&context, "upperdir", upper).unwrap();
        fsconfig_set_string(&context, "workdir", work).unwrap();
    }
    fsconfig_create(&context).unwrap();
    let flags = MountAttrFlags::empty();
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).unwrap();
    move_mount(&mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    Mounted { at: at.to_owned() }
}

/// Has Debian's tools read an image, where they can be had.
pub(crate) fn check(image: &Path) {
    check_with(image, &[]);
}

fn check_with(image: &Path, devices: &[PathBuf]) {
    static TOOLS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| match unpacked("erofs-utils") {
        Ok(files) => Some(files.join("usr/bin")),
        Err(error) => {
            report_skip(&format!("images are not checked by erofs-utils: {error:#}"));
            None
        }
    });
    let Some(tools) = tools else { return };
    // Version 1.5 can't read what lies on a device, but knows that there is one.
    let fsck_flag = if devices.is_empty() {
        "--extract"
    } else {
        "-d3"
    };
    for (tool, flag) in [("fsck.erofs", fsck_flag), ("dump.erofs", "-S")] {
        let output = Command::new(tools.join(tool))
            .arg(flag)
            .args(
                devices
                    .iter()
                    .map(|device| format!("--device={}", device.display())),
            )
            .arg(image)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let is_sound = output.status.success() && !text.contains("<E>") && !text.contains("<W>");
        assert!(is_sound, "{tool}: {} {text}", output.status);
    }
}

/// What is found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) mode: u32,
    /// Zero for whiteouts, of which nobody sees it.
    pub(crate) owner: (u32, u32),
    /// None for whiteouts, of which nobody sees it.
    pub(crate) mtime: Option<(i64, i64)>,
    /// Names of files and their like; none for directories and whiteouts.
    pub(crate) links: Option<u64>,
    /// The first path of the same file, for files with several.
    pub(crate) same_as: Option<PathBuf>,
    pub(crate) device: u64,
    /// Contents of a file, target of a symlink.
    pub(crate) data: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Describes all that is beneath `base` by its paths.
pub(crate) fn found(base: &Path) -> BTreeMap<PathBuf, Found> {
    let mut all = BTreeMap::new();
    let mut originals = HashMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        let mut names: Vec<_> = fs::read_dir(base.join(&dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        let mut subdirs = 0;
        for name in names {
            let path = dir.join(name);
            let entry = describe(&base.join(&path), &path, &mut originals);
            if FileType::from_raw_mode(entry.mode) == FileType::Directory {
                subdirs += 1;
                pending.push(path.clone());
            }
            all.insert(path, entry);
        }
        let links = base.join(&dir).metadata().unwrap().nlink();
        // Some file systems don't count.
        assert!(
            links == 1 || links == 2 + subdirs,
            "{}: {links}",
            dir.display()
        );
    }
    all
}

fn describe(at: &Path, path: &Path, originals: &mut HashMap<(u64, u64), PathBuf>) -> Found {
    let metadata = at.symlink_metadata().unwrap();
    let is_whiteout = FileType::from_raw_mode(metadata.mode()) == FileType::CharacterDevice
        && metadata.rdev() == 0;
    let is_linked = !metadata.is_dir() && !is_whiteout;
    let same_as = (is_linked && metadata.nlink() > 1).then(|| {
        originals
            .entry((metadata.dev(), metadata.ino()))
            .or_insert_with(|| path.to_owned())
            .clone()
    });
    let data = if metadata.is_file() {
        fs::read(at).unwrap()
    } else if metadata.is_symlink() {
        at.read_link().unwrap().into_os_string().into_vec()
    } else {
        Vec::new()
    };
    if metadata.is_file() {
        assert_eq!(metadata.len(), data.len() as u64);
    }
    Found {
        mode: metadata.mode(),
        owner: if is_whiteout {
            (0, 0)
        } else {
            (metadata.uid(), metadata.gid())
        },
        mtime: (!is_whiteout).then(|| (metadata.mtime(), metadata.mtime_nsec())),
        links: is_linked.then(|| metadata.nlink()),
        same_as,
        device: metadata.rdev(),
        data,
        xattrs: xattrs(at),
    }
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0_u8; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"));
    names
        .map(|name| {
            let mut value = vec![0_u8; 1 << 16];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// Compares trees; tells what differs and no more.
pub(crate) fn assert_same(image: &BTreeMap<PathBuf, Found>, other: &BTreeMap<PathBuf, Found>) {
    let paths = |found: &BTreeMap<PathBuf, Found>| found.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(image), paths(other));
    for (path, entry) in image {
        let expected = &other[path];
        assert!(entry.data == expected.data, "content of {}", path.display());
        assert_eq!(entry, expected, "{}", path.display());
    }
}

/// Unpacks an image, and returns what is in the directory.
pub(crate) fn unpacked_image(image: &Path) -> BTreeMap<PathBuf, Found> {
    let dir = tempfile::tempdir().unwrap();
    unpack_image(image, dir.path());
    found(dir.path())
}

/// Unpacks an image into an empty directory.
pub(crate) fn unpack_image(image: &Path, dir: &Path) {
    let reader = Reader::open(File::open(image).unwrap()).unwrap();
    let mut warn = |warning| panic!("{warning}");
    let root = Root::open(dir).unwrap();
    let options = ApplyOptions::new(&mut warn);
    apply_image(&root, &reader, LayerForm::Overlay, options).unwrap();
}

/// Packs what an image holds, and what a directory shows that it is mounted at, in all ways: they must make
/// the same layers, or fail both.
pub(crate) fn assert_same_layers(image: &Path, mounted: &Path, lower: Option<&Path>) {
    let reader = Reader::open(File::open(image).unwrap()).unwrap();
    assert_read_as(&reader, mounted, lower);
}

/// As [`assert_same_layers`], of an image that was opened.
pub(crate) fn assert_read_as(reader: &Reader, mounted: &Path, lower: Option<&Path>) {
    let mounted = Root::open(mounted).unwrap();
    let lower = lower.map(|lower| Root::open(lower).unwrap());
    for (lower, style) in [
        (lower.as_ref(), Style::Overlay),
        (lower.as_ref(), Style::Tree),
        (None, Style::Overlay),
    ] {
        let expected = packed(&mounted, lower, style);
        let layer = packed(reader, lower, style);
        assert_eq!(layer.is_ok(), expected.is_ok(), "{layer:?} {expected:?}");
        if let (Ok(layer), Ok(expected)) = (layer, expected) {
            assert!(layer == expected, "{style:?}: the layers differ");
        }
    }
}

/// A layer that lies in a directory.
#[derive(Debug)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl Layer for Directory {
    fn root(&self) -> io::Result<Arc<OwnedFd>> {
        Ok(Arc::new(File::open(&self.0)?.into()))
    }
}

/// A layer that lies in an image, and that nobody mounts.
#[derive(Debug)]
pub(crate) struct InImage(pub(crate) Arc<Reader>);

impl Layer for InImage {
    fn root(&self) -> io::Result<Arc<OwnedFd>> {
        Err(io::Error::other("an image would have to be mounted"))
    }

    fn image(&self) -> io::Result<Option<Arc<Reader>>> {
        Ok(Some(Arc::clone(&self.0)))
    }
}

/// Returns the tree that lies in a directory.
pub(crate) fn lower_of(directory: &Path) -> Lower {
    Lower::new(vec![Arc::new(Directory(directory.to_owned()))])
}

/// Packs what `upper` changes.
pub(crate) fn packed<'a>(
    upper: impl Into<Upper<'a>>,
    lower: Option<&Root>,
    style: Style,
) -> larder_tree::Result<Vec<u8>> {
    let mut layer = Vec::new();
    write_layer(upper, lower, style, &mut layer, &LayerOptions::default())?;
    Ok(layer)
}

/// Packs entries as they are given.
pub(crate) fn archive(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut writer = tar::Writer::new(Vec::new());
    for (header, data) in entries {
        let mut header = header.clone();
        if header.kind == Kind::File {
            header.size = data.len() as u64;
        }
        writer.append(&header).unwrap();
        std::io::Write::write_all(&mut writer, data).unwrap();
    }
    writer.finish().unwrap()
}

/// Applies a layer, and returns the warnings too.
pub(crate) fn apply(
    sink: &impl Sink,
    layer: &[u8],
) -> (larder_tree::Result<ApplyStats>, Vec<Warning>) {
    let mut warnings = Vec::new();
    let mut on_warning = |warning| warnings.push(warning);
    let options = ApplyOptions::new(&mut on_warning);
    let result = apply_layer(sink, layer, LayerForm::Overlay, options);
    (result, warnings)
}

/// Applies a layer to an image and to a directory; both must come out the same, or fail the same.
/// Returns what is in them.
pub(crate) fn apply_to_both(layer: &[u8]) -> Option<(BTreeMap<PathBuf, Found>, Summary)> {
    let dir = tempfile::tempdir().unwrap();
    let (expected, expected_warnings) = apply(&Root::open(dir.path()).unwrap(), layer);
    assert_image_as(layer, dir.path(), &expected, &expected_warnings)
}

/// Applies a layer to an image, which must come out as the directory did. Returns what is in both,
/// unless both failed.
pub(crate) fn assert_image_as(
    layer: &[u8],
    dir: &Path,
    expected: &larder_tree::Result<ApplyStats>,
    expected_warnings: &[Warning],
) -> Option<(BTreeMap<PathBuf, Found>, Summary)> {
    let test = TestImage::new();
    let image = test.begin();
    let (stats, warnings) = apply(&image, layer);
    match (stats, expected) {
        (Ok(stats), Ok(expected)) => assert_eq!(stats, *expected),
        (Err(error), Err(expected)) => {
            assert_eq!(error.to_string(), expected.to_string());
            assert_eq!(error.kind(), expected.kind());
            return None;
        }
        (stats, expected) => panic!("image: {stats:?}, directory: {expected:?}"),
    }
    assert_eq!(warnings, expected_warnings);
    let summary = image.finish().unwrap();
    let mounted = test.mount();
    let found = found(mounted.path());
    assert_same(&found, &self::found(dir));
    assert_same_layers(&test.path(), mounted.path(), None);
    assert_same(&unpacked_image(&test.path()), &found);
    assert_eq!(summary.size_bytes, test.path().metadata().unwrap().len());
    Some((found, summary))
}

/// Returns a name of any bytes.
pub(crate) fn name(bytes: impl AsRef<[u8]>) -> OsString {
    std::ffi::OsStr::from_bytes(bytes.as_ref()).to_owned()
}
