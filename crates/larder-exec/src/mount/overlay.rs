//! Mounting overlayfs.

use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use larder_oci::{Layer, OverlayUpper};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountAttrFlags, MountFlags};

use super::{Access, isolated};
use crate::{Error, ErrorKind, Result};

/// The most layers that overlayfs stacks (`OVL_MAX_STACK`).
const MAX_LOWERS: usize = 500;

/// The longest string that `fsconfig` takes, its end included.
const MAX_STRING_BYTES: usize = 256;

/// The longest options that `mount` takes: a page, its end included.
const MAX_OPTIONS_BYTES: usize = 4096;

/// Mounts an overlay of `lowers`, topmost first. An upper directory takes one mount in its life.
pub(super) fn open(
    lowers: &[Layer],
    upper: Option<&OverlayUpper>,
    userxattr: bool,
    access: Access,
) -> Result<OwnedFd> {
    if lowers.len() > MAX_LOWERS {
        return Err(Error::new(
            ErrorKind::Input,
            format!(
                "cannot mount an overlay of {} layers: overlayfs takes {MAX_LOWERS}",
                lowers.len()
            ),
        ));
    }
    let layers = Layers {
        lowers,
        upper,
        userxattr,
    };
    let mount = match layers.mount_one_by_one() {
        // `lowerdir+` came with Linux 6.8.
        Err(Errno::INVAL) => layers.mount_by_options().map_err(|errno| match errno {
            Errno::TOOBIG => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "cannot mount an overlay of {} layers before Linux 6.8",
                    lowers.len()
                ),
            ),
            errno => Error::system("cannot mount an overlay", errno),
        }),
        mounted => mounted.map_err(|errno| Error::system("cannot mount an overlay", errno)),
    }?;
    if let Some(upper) = upper {
        check_writable(&mount, upper)
            .map_err(|errno| Error::system("cannot mount an overlay for writing", errno))?;
    }
    super::restrict(&mount, access)?;
    Ok(mount)
}

/// Overlayfs that can't make its working directory mounts read-only, and doesn't say why: the disk
/// may be full. Returns the error of another directory in the same place.
fn check_writable(mount: &OwnedFd, upper: &OverlayUpper) -> rustix::io::Result<()> {
    if !rustix::fs::fstatvfs(mount)?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Ok(());
    }
    rustix::fs::mkdir(upper.work.join("probe"), Mode::RWXU)?;
    Err(Errno::ROFS)
}

/// What an overlay is made of.
pub(super) struct Layers<'a> {
    pub(super) lowers: &'a [Layer],
    pub(super) upper: Option<&'a OverlayUpper>,
    pub(super) userxattr: bool,
}

impl Layers<'_> {
    /// Mounts with one setting for each layer.
    fn mount_one_by_one(&self) -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), "source", "overlay")?;
        let mut opened = Vec::new();
        let mut set = |key: &str, value: Setting<'_>| {
            rustix::mount::fsconfig_set_string(context.as_fd(), key, value.text())?;
            opened.extend(value.into_descriptor());
            Ok::<(), Errno>(())
        };
        for lower in self.lowers {
            set("lowerdir+", Setting::of_layer(lower)?)?;
        }
        if let Some(OverlayUpper { upper, work }) = self.upper {
            set("upperdir", Setting::of(upper)?)?;
            set("workdir", Setting::of(work)?)?;
        }
        for (key, value) in self.behaviour() {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value)?,
                None => rustix::mount::fsconfig_set_flag(context.as_fd(), key)?,
            }
        }
        super::create(&context, MountAttrFlags::empty())
    }

    /// Mounts with all layers in one string, as every kernel can.
    pub(super) fn mount_by_options(&self) -> rustix::io::Result<OwnedFd> {
        isolated::in_own_namespace(|| {
            // Layers are named by descriptors, relative to the working directory, so that hundreds
            // of them fit. They must be opened in the namespace that the overlay is mounted in.
            let mut opened = Vec::new();
            let options = self.options(&mut opened)?;
            // The thread's own: it left the process's with the namespace.
            rustix::process::chdir("/proc/self/fd")?;
            rustix::mount::mount(
                "overlay",
                "/",
                "overlay",
                MountFlags::empty(),
                options.as_c_str(),
            )?;
            super::clone_of(&topmost_root()?)
        })
    }

    /// Returns all settings in one string, with the descriptors that it names added to `opened`.
    fn options(&self, opened: &mut Vec<OwnedFd>) -> rustix::io::Result<CString> {
        let mut open = |path: &Path| -> rustix::io::Result<String> {
            let fd = open_layer(path)?;
            let number = fd.as_raw_fd().to_string();
            opened.push(fd);
            Ok(number)
        };
        let lowers = self
            .lowers
            .iter()
            .map(|lower| match lower {
                Layer::Directory(path) => open(path),
                Layer::Image(root) => Ok(root.as_raw_fd().to_string()),
            })
            .collect::<rustix::io::Result<Vec<_>>>()?;
        let mut options = vec![format!("lowerdir={}", lowers.join(":"))];
        if let Some(OverlayUpper { upper, work }) = self.upper {
            options.push(format!("upperdir={}", open(upper)?));
            options.push(format!("workdir={}", open(work)?));
        }
        options.extend(
            self.behaviour()
                .into_iter()
                .map(|(key, value)| match value {
                    Some(value) => format!("{key}={value}"),
                    None => key.to_owned(),
                }),
        );
        let options = options.join(",");
        if options.len() >= MAX_OPTIONS_BYTES {
            return Err(Errno::TOOBIG);
        }
        CString::new(options).map_err(|_| Errno::INVAL)
    }

    /// Returns the settings that make an overlay's upper directory a faithful record of changes,
    /// and keep the kernel from writing it to the disk.
    fn behaviour(&self) -> Vec<(&'static str, Option<&'static str>)> {
        let mut settings = if self.userxattr {
            // Implies that directories are not redirected.
            vec![("userxattr", None)]
        } else {
            // Distributions differ in these defaults; redirects and metadata-only copies would
            // leave an upper directory that means nothing by itself.
            vec![
                ("redirect_dir", Some("off")),
                ("metacopy", Some("off")),
                ("index", Some("off")),
                // Layers on different filesystems would get inode numbers that 32-bit programs can't take.
                ("xino", Some("off")),
            ]
        };
        if self.upper.is_some() {
            // Else the end of each overlay syncs the whole filesystem that it lies on. What was
            // not synced when the machine failed is for the snapshots' owner to know.
            settings.push(("volatile", None));
        }
        settings
    }
}

/// A path as a setting of `fsconfig`.
enum Setting<'a> {
    Path(&'a Path),
    /// Of a descriptor, which is the setting's own if it was opened for that.
    Descriptor {
        text: String,
        own: Option<OwnedFd>,
    },
}

impl<'a> Setting<'a> {
    fn of_layer(layer: &'a Layer) -> rustix::io::Result<Self> {
        match layer {
            Layer::Directory(path) => Self::of(path),
            Layer::Image(root) => Ok(Self::Descriptor {
                text: by_number(root),
                own: None,
            }),
        }
    }

    fn of(path: &'a Path) -> rustix::io::Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        // overlayfs gives these a meaning in some settings.
        let plain = !bytes.iter().any(|byte| matches!(byte, b'\\' | b':' | b','));
        if plain && bytes.len() < MAX_STRING_BYTES {
            return Ok(Self::Path(path));
        }
        let fd = open_layer(path)?;
        Ok(Self::Descriptor {
            text: by_number(&fd),
            own: Some(fd),
        })
    }

    fn text(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Descriptor { text, .. } => Path::new(text),
        }
    }

    fn into_descriptor(self) -> Option<OwnedFd> {
        match self {
            Self::Path(_) => None,
            Self::Descriptor { own, .. } => own,
        }
    }
}

fn by_number(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn open_layer(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens what is mounted on top of the root directory. A lookup of `/` does not step onto it, one
/// of `/..` does.
fn topmost_root() -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, "/..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
