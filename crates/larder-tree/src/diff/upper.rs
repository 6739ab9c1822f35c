use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use super::layer::read_failed;
use super::node::{Dir, Listing, Node};
use crate::Result;
use crate::beneath::Root;
use crate::erofs::Reader;
use crate::tar::Header;

/// The tree that a layer is made of.
#[derive(Debug, Clone, Copy)]
pub enum Upper<'a> {
    /// As it lies in a directory, or in what is mounted there.
    Directory(&'a Root),
    /// As it lies in an image, which need not be mounted.
    Image(&'a Reader),
}

impl<'a> From<&'a Root> for Upper<'a> {
    fn from(root: &'a Root) -> Self {
        Self::Directory(root)
    }
}

impl<'a> From<&'a Reader> for Upper<'a> {
    fn from(image: &'a Reader) -> Self {
        Self::Image(image)
    }
}

impl Upper<'_> {
    /// Runs `walk` with the topmost directory.
    pub(super) fn with_root(self, walk: impl FnOnce(Dir<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::Directory(root) => walk(Dir::Open(root.open_dir("")?.as_fd())),
            Self::Image(image) => {
                let root = image.root().and_then(|root| Listing::read(image, &root));
                let root = root.map_err(|error| read_failed(Path::new("/"), error))?;
                walk(Dir::Listed(&root))
            }
        }
    }

    /// Describes what is at `path`, which is not the root; `None` for a socket.
    ///
    /// # Errors
    /// `NotFound` if nothing is.
    pub(super) fn header(self, path: &Path) -> Result<Option<Header>> {
        let header = |node: Option<Node<'_>>| {
            let node = node.ok_or(Errno::NOENT)?;
            node.header(path.to_owned())
        };
        match self {
            Self::Directory(root) => {
                let (above, name) = root.parent_of(path)?;
                Node::find(above.as_fd(), &name).and_then(header)
            }
            Self::Image(image) => {
                let found = image.find(path);
                found.and_then(|inode| header(inode.map(|inode| Node::in_image(image, inode))))
            }
        }
        .map_err(|error| read_failed(path, error))
    }
}
