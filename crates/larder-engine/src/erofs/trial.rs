//! Tries with one small image what layers need of the kernel.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use larder_exec::mount;
use larder_oci::{Layer, Mount, MountKind, OverlayUpper};
use larder_tree::apply::{ApplyOptions, LayerForm, apply_layer};
use larder_tree::beneath::Root;
use larder_tree::checksum::content_digest;
use larder_tree::context::{ScanOptions, StatCache, scan};
use larder_tree::copy::{CopyOptions, copy_again};
use larder_tree::erofs::{Image, Past};
use larder_tree::quota::Unlimited;
use larder_tree::tar::{Header, Writer};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::{BuildError, ErrorClass, Result};

/// `cap_net_raw=ep`, as the kernel keeps it.
const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];
const CAPABILITY_NAME: &str = "security.capability";
/// So much of a file is worth being used again.
const SHARED_BYTES: usize = 256 << 10;

/// Mounts an image upon a directory, and looks whether marks and attributes in it are honoured, and whether it can
/// be written upon. Leaves nothing behind in `directory`.
///
/// # Errors
/// When they are not, with what is missing.
pub(super) fn run(directory: &Path) -> Result<()> {
    let scratch = directory.join(format!(".layers-{}", std::process::id()));
    let tried = try_in(&scratch);
    if let Err(error) = fs_err::remove_dir_all(&scratch) {
        tracing::debug!(%error, "the trial of images stays");
    }
    tried
}

fn try_in(scratch: &Path) -> Result<()> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| scratch.join(name));
    for path in [&lower.join("opaque"), &upper, &work] {
        fs_err::create_dir_all(path).map_err(failed)?;
    }
    for path in ["gone", "opaque/old"] {
        fs_err::write(lower.join(path), "").map_err(failed)?;
    }
    let image = image(&scratch.join("image"))?;
    let root = Arc::new(mount::image(&image, &[])?);
    let layers = || vec![Layer::Image(Arc::clone(&root)), lower.clone().into()];
    let open = |upper: Option<OverlayUpper>| {
        let readonly = upper.is_none();
        let kind = MountKind::Overlay {
            lowers: layers(),
            upper,
            userxattr: false,
        };
        mount::open(&Mount { kind, readonly })
    };
    check(&open(None)?)?;
    check_devices(scratch)?;
    let written = open(Some(OverlayUpper { upper, work }))?;
    check(&written)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&written, "tool", flags, Mode::empty())
        .and_then(|_| rustix::fs::unlinkat(&written, "opaque/new", AtFlags::empty()))
        .map_err(|errno| failed(errno.into()))
}

/// Makes an image with a whiteout, an opaque directory, and a file that has a capability.
fn image(path: &Path) -> Result<File> {
    let mut tool = Header::file("tool", 1);
    tool.xattrs
        .insert(CAPABILITY_NAME.into(), CAPABILITY.to_vec());
    let mut tar = Writer::new(Vec::new());
    for header in [
        Header::file(".wh.gone", 0),
        Header::directory("opaque"),
        Header::file("opaque/.wh..wh..opq", 0),
        Header::file("opaque/new", 0),
        tool,
    ] {
        tar.append(&header)?;
    }
    tar.write_all(b"x").map_err(failed)?;
    let layer = tar.finish()?;
    let file = new_file(path)?;
    let image = Image::new(file.try_clone().map_err(failed)?);
    let mut warn = |_| {};
    apply_layer(
        &image,
        &layer[..],
        LayerForm::Overlay,
        ApplyOptions::new(&mut warn),
    )?;
    image.finish()?;
    Ok(file)
}

fn check(root: &OwnedFd) -> Result<()> {
    let exists =
        |path: &str| rustix::fs::statat(root.as_fd(), path, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let mut value = [0; CAPABILITY.len()];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let has_capability = rustix::fs::openat(root, "tool", flags, Mode::empty())
        .and_then(|tool| rustix::fs::fgetxattr(tool, CAPABILITY_NAME, &mut value))
        .is_ok_and(|length| value[..length] == CAPABILITY);
    let missing = if exists("gone") {
        "whiteouts"
    } else if exists("opaque/old") || !exists("opaque/new") {
        "opaque directories"
    } else if !has_capability {
        "capabilities of files"
    } else {
        return Ok(());
    };
    let message = format!("overlayfs doesn't honour {missing} in EROFS images");
    Err(BuildError::new(ErrorClass::Invalid, message))
}

/// Makes an image of a file, then another that uses its blocks, and looks whether that shows the file.
fn check_devices(scratch: &Path) -> Result<()> {
    let context = scratch.join("context");
    fs_err::create_dir(&context).map_err(failed)?;
    let expected = vec![7; SHARED_BYTES];
    fs_err::write(context.join("data"), &expected).map_err(failed)?;
    let tree = scan(
        Root::open(&context)?,
        &ScanOptions::default(),
        StatCache::default(),
    )?;
    content_digest(&tree, &[])?;
    let copy = |name: &str, past: Option<&Past>| -> Result<File> {
        let file = new_file(&scratch.join(name))?;
        let image = Image::new(file.try_clone().map_err(failed)?);
        let options = CopyOptions {
            src: "/data".to_owned(),
            dest: "/data".to_owned(),
            ..CopyOptions::default()
        };
        copy_again(&tree, &image, &options, &Unlimited, past)?;
        image.finish()?;
        Ok(file)
    };
    let first = copy("first", None)?;
    let past = Past::open(first.try_clone().map_err(failed)?);
    let past = past.map(|past| past.shared_as("first"));
    let second = copy("second", past.as_ref())?;
    let shown = mount::image(&second, &[first.as_fd()]).map(|root| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut shown = Vec::new();
        let opened = rustix::fs::openat(&root, "data", flags, Mode::empty());
        let read = opened.map(|data| File::from(data).read_to_end(&mut shown));
        read.map(|_| shown)
    });
    if shown.is_ok_and(|shown| shown.is_ok_and(|shown| shown == expected)) {
        return Ok(());
    }
    let message = "an EROFS image can't use the blocks of another";
    Err(BuildError::new(ErrorClass::Invalid, message))
}

fn new_file(path: &Path) -> Result<File> {
    let mut options = fs_err::OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).open(path);
    Ok(file.map_err(failed)?.into_file())
}

fn failed(error: std::io::Error) -> BuildError {
    BuildError::new(ErrorClass::Exhausted, "EROFS images can't be tried").with_source(error)
}
