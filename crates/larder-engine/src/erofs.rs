//! Layers as EROFS images: whether they can be that here, and how the store's images are mounted.

mod trial;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use larder_exec::mount;
use larder_exec::rootless::{self, IdMap};
use larder_store::{Mounter, Snapshotter};
use larder_tree::erofs::Files;

use crate::config::LayersConfig;
use crate::error::{BuildError, ErrorClass, Result};

/// Holds what the last trial said, and of which kernel.
const FILE: &str = "layers";
/// Raised when the trial tries something else.
const TRIAL_VERSION: u32 = 2;

/// Mounts images and views for the store of one engine.
#[derive(Debug)]
pub(crate) struct Mounts {
    root: PathBuf,
    snapshotter: Snapshotter,
    layers: LayersConfig,
    /// Why images can't be mounted, once that was asked.
    no_images: OnceLock<Option<String>>,
}

impl Mounts {
    /// Returns the mounts of the state directory `root`, which exists.
    ///
    /// # Errors
    /// When layers have to be images and can't.
    pub(crate) fn new(
        root: &Path,
        snapshotter: Snapshotter,
        layers: LayersConfig,
    ) -> Result<Arc<Self>> {
        let mounts = Self {
            root: root.to_owned(),
            snapshotter,
            layers,
            no_images: OnceLock::new(),
        };
        if layers == LayersConfig::Erofs
            && let Some(reason) = mounts.no_images()
        {
            let message = format!("layers can't be EROFS images here: {reason}");
            return Err(BuildError::new(ErrorClass::Invalid, message)
                .with_hint("`layers = \"auto\"` in `[store]` takes directories where they can't"));
        }
        Ok(Arc::new(mounts))
    }

    /// Returns what new layers are: `erofs`, or `directory` with the reason.
    pub(crate) fn describe(&self) -> String {
        if self.layers == LayersConfig::Directory {
            return "directory (by the configuration)".to_owned();
        }
        match self.no_images() {
            None => "erofs".to_owned(),
            Some(reason) => format!("directory ({reason})"),
        }
    }

    fn ask(&self) -> Option<String> {
        if self.snapshotter == Snapshotter::Native {
            return Some("snapshots are copies".to_owned());
        }
        if self.snapshotter != (Snapshotter::Overlay { userxattr: false })
            || rootless::id_map() != IdMap::Full
        {
            return Some("images can't be mounted in a user namespace".to_owned());
        }
        let file = self.root.join(FILE);
        let kernel = kernel();
        let known = fs_err::read_to_string(&file).unwrap_or_default();
        if let Some(answer) = known.strip_prefix(&kernel) {
            return match answer.trim_end() {
                "erofs" => None,
                reason => Some(reason.to_owned()),
            };
        }
        let reason = trial::run(&self.root)
            .err()
            .map(|error| error.full_message());
        let answer = reason.as_deref().unwrap_or("erofs");
        let temporary = self.root.join(format!("{FILE}.{}", std::process::id()));
        let written = fs_err::write(&temporary, format!("{kernel}{answer}\n"))
            .and_then(|()| fs_err::rename(&temporary, &file));
        if let Err(error) = written {
            tracing::debug!(%error, "the trial of images is made again next time");
        }
        reason
    }
}

/// Returns what an answer is about: the trial, and the kernel in which it was made.
fn kernel() -> String {
    let uname = rustix::system::uname();
    let (release, version) = (uname.release(), uname.version());
    format!(
        "{TRIAL_VERSION} {} {}\n",
        release.to_string_lossy(),
        version.to_string_lossy()
    )
}

impl Mounter for Mounts {
    fn no_images(&self) -> Option<String> {
        self.no_images.get_or_init(|| self.ask()).clone()
    }

    fn wants_images(&self) -> bool {
        self.layers != LayersConfig::Directory
    }

    fn mount_image(&self, files: &Files) -> io::Result<OwnedFd> {
        let devices: Vec<_> = files.devices().map(AsFd::as_fd).collect();
        mount::image(files.own(), &devices).map_err(io::Error::other)
    }
}
