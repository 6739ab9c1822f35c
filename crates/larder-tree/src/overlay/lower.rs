use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::directory::{self, Attributes, LayerDir};
use super::index::{Found, Index};
use crate::erofs::Reader;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The files of one layer, in overlayfs's terms. They don't change.
pub trait Layer: fmt::Debug + Send + Sync {
    /// Returns the layer's root directory.
    ///
    /// # Errors
    /// What the system says.
    fn root(&self) -> io::Result<Arc<OwnedFd>>;

    /// Returns the image that the layer lies in, if it does: names, and attributes of directories, are read
    /// there, and nothing is mounted for them. It is asked for often.
    ///
    /// # Errors
    /// What the system says.
    fn image(&self) -> io::Result<Option<Arc<Reader>>> {
        Ok(None)
    }
}

/// The tree that layers show together. Cheap to clone.
///
/// Trees of which one is the other with layers upon it share what they know: whoever goes up a chain
/// layer by layer reads each directory that he asks for once in each layer.
#[derive(Debug, Clone)]
pub struct Lower {
    chain: Arc<Mutex<Chain>>,
    /// How many of the chain's layers it has.
    height: usize,
}

/// Layers, and what is known of them.
#[derive(Debug, Default)]
struct Chain {
    /// Lowest first.
    layers: Vec<Arc<dyn Layer>>,
    index: Index,
}

impl Lower {
    /// Returns what `layers`, lowest first, show.
    pub fn new(layers: Vec<Arc<dyn Layer>>) -> Self {
        let height = layers.len();
        let chain = Chain {
            layers,
            index: Index::default(),
        };
        Self {
            chain: Arc::new(Mutex::new(chain)),
            height,
        }
    }

    /// Returns what is seen with another layer on top.
    #[must_use]
    pub fn with(&self, top: Arc<dyn Layer>) -> Self {
        let mut chain = self.chain();
        if chain.layers.len() == self.height {
            chain.layers.push(top);
            return Self {
                chain: Arc::clone(&self.chain),
                height: self.height + 1,
            };
        }
        // Another tree has grown out of this one.
        let below = &chain.layers[..self.height];
        Self::new(below.iter().cloned().chain([top]).collect())
    }

    /// Returns permissions, user and group of the tree's root; `None` for no layers.
    ///
    /// # Errors
    /// What the system says.
    pub fn root_attributes(&self) -> io::Result<Option<(u32, u32, u32)>> {
        let root = self.attributes(Path::new(""))?;
        Ok(root.map(|root| (root.mode, root.owner.0, root.owner.1)))
    }

    /// Opens the directory `dir` of a layer as it lies, to look its entries up.
    pub(crate) fn open_layer(&self, layer: usize, dir: &Path) -> Result<LayerDir, Errno> {
        directory::open(&*self.layer(layer)?, dir)
    }

    /// Returns what is seen under `name` in the directory `dir`; nothing if there is no such directory.
    pub(crate) fn find(&self, dir: &Path, name: &OsStr) -> Result<Option<Found>, Errno> {
        let Chain { layers, index } = &mut *self.chain();
        index.find(&layers[..self.height], dir, name)
    }

    /// Returns the names that are seen in a directory, in no order; none if there is no such directory.
    pub(crate) fn names(&self, dir: &Path) -> Result<Vec<OsString>, Errno> {
        let Chain { layers, index } = &mut *self.chain();
        index.names(&layers[..self.height], dir)
    }

    /// Returns the attributes of a directory: those of the topmost layer that has it. `None` if there is no such
    /// directory.
    pub(crate) fn attributes(&self, dir: &Path) -> Result<Option<Attributes>, Errno> {
        let span = {
            let Chain { layers, index } = &mut *self.chain();
            index.span(&layers[..self.height], dir)?
        };
        let attributes = span.map(|span| directory::attributes(&*self.layer(span.top)?, dir));
        attributes.transpose()
    }

    /// Opens the directory `dir` of a layer, for reading.
    pub(crate) fn open(&self, layer: usize, dir: &Path) -> Result<OwnedFd, Errno> {
        open_dir(&*self.layer(layer)?, dir)
    }

    /// Returns the target of the symlink `name` of a layer's directory `dir`.
    pub(crate) fn read_link(
        &self,
        layer: usize,
        dir: &Path,
        name: &OsStr,
    ) -> Result<PathBuf, Errno> {
        directory::read_link(&*self.layer(layer)?, dir, name)
    }

    fn layer(&self, layer: usize) -> Result<Arc<dyn Layer>, Errno> {
        let layer = self.chain().layers.get(layer).cloned();
        layer.ok_or(Errno::INVAL)
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        // What is in it is whole between any two calls.
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a directory of a layer. No symlink leads there.
pub(super) fn open_dir(layer: &dyn Layer, path: &Path) -> Result<OwnedFd, Errno> {
    let root = layer.root();
    let root = root.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if path.as_os_str().is_empty() {
        return fs::openat(&root, ".", DIRECTORY, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match fs::openat2(&root, path, DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

/// Returns the target of a symlink.
pub(super) fn read_link_at(dir: impl AsFd, name: &OsStr) -> Result<PathBuf, Errno> {
    let target = fs::readlinkat(dir, name, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()).into())
}

/// Opens a directory by its name.
pub(super) fn enter(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, DIRECTORY, Mode::empty())
}
