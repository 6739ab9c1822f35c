//! Mounts as an engine would make them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use larder_store::Mounter;
use larder_tree::erofs::Files;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// Wants images, and mounts them.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// Why it can't.
    pub(crate) reason: Option<String>,
}

impl Images {
    /// Returns `None`, with a word, where the kernel mounts no images.
    pub(crate) fn new() -> Option<Self> {
        let images = Self::default();
        let file = tempfile::tempfile().unwrap();
        let image = larder_tree::erofs::Image::new(file.try_clone().unwrap());
        image.finish().unwrap();
        match images.mount_image(&file.into()) {
            Ok(_) => Some(images),
            Err(error) => {
                println!("skipped: EROFS images can't be mounted here: {error}");
                None
            }
        }
    }
}

impl Mounter for Images {
    fn no_images(&self) -> Option<String> {
        self.reason.clone()
    }

    fn wants_images(&self) -> bool {
        true
    }

    fn mount_image(&self, files: &Files) -> io::Result<OwnedFd> {
        let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
        let devices = files.devices().map(|file| ("device", path(file)));
        let settings: Vec<_> = [("source", path(files.own()))]
            .into_iter()
            .chain(devices)
            .collect();
        Ok(mounted("erofs", &settings)?)
    }
}

fn mounted(kind: &str, settings: &[(&str, String)]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in settings {
        fsconfig_set_string(context.as_fd(), *key, value.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
