use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::options::{ApplyOptions, LayerForm};
use super::place::Content;
use super::unpacker::{Unpacker, failed, unpack_text};
use super::whiteout::OPAQUE;
use crate::diff::Node;
use crate::erofs::{ReadEntry, Reader};
use crate::sink::Sink;
use crate::sink::operations::Place;
use crate::tar::{Header, Kind, Segment};
use crate::{Error, ErrorKind, Result};

/// Makes the layer that an image holds into `form` beneath `root`, which is empty: what would be seen if
/// it were mounted, with the marks by which it hides what is beneath it.
///
/// What a layer can't have is left out: sockets, and attributes that belong to the host.
///
/// # Errors
/// `InvalidInput` for a damaged image, else those of writing. What an error leaves behind is for the
/// caller to remove.
pub fn apply_image<'a>(
    root: &'a impl Sink,
    image: &Reader,
    form: LayerForm,
    options: ApplyOptions<'a>,
) -> Result<()> {
    let mut walk = Walk {
        unpacker: Unpacker::new(root, Some(form), options),
        form,
        links: HashMap::new(),
    };
    let top = Path::new("");
    let root_inode = image.root().map_err(|error| unreadable(top, error))?;
    let mut entered = HashSet::new();
    let mut pending = vec![(PathBuf::new(), root_inode)];
    while let Some((path, dir)) = pending.pop() {
        // A damaged image may have a directory in itself.
        if !entered.insert(dir.number) {
            let text = format!("{}: the directory has two names", unpack_text(&path));
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        for ReadEntry { name, number, .. } in
            image.list(&dir).map_err(|error| unreadable(&path, error))?
        {
            let path = path.join(name);
            let inode = image
                .inode(number)
                .map_err(|error| unreadable(&path, error))?;
            let node = Node::in_image(image, inode);
            walk.entry(&node, &path)?;
            if node.is_dir() {
                pending.push((path, inode));
            }
        }
    }
    walk.unpacker.finish_dirs()?;
    walk.root(&Node::in_image(image, root_inode))
}

struct Walk<'a, S: Sink> {
    unpacker: Unpacker<'a, S>,
    form: LayerForm,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<S: Sink> Walk<'_, S> {
    fn entry(&mut self, node: &Node<'_>, path: &Path) -> Result<()> {
        let unreadable = |error| unreadable(path, error);
        if node.is_whiteout().map_err(unreadable)? {
            let parent = self.unpacker.parent_of(path)?;
            let name = path.file_name().unwrap_or_default();
            return self.unpacker.hide_victim(self.form, &parent, name, path);
        }
        let Some(mut header) = node.header(path.to_owned()).map_err(unreadable)? else {
            return Ok(());
        };
        if let Some(id) = node.link_id() {
            match self.links.entry(id) {
                Entry::Occupied(first) => header.kind = Kind::HardLink(first.get().clone()),
                Entry::Vacant(place) => drop(place.insert(path.to_owned())),
            }
        }
        let segments = match header.kind {
            Kind::File => node.segments().map_err(unreadable)?,
            _ => Vec::new(),
        };
        let mut content = NodeContent {
            node,
            segments,
            current: 0,
            taken: 0,
        };
        self.unpacker.place(path, &header, &mut content)?;
        self.mark(node, path)
    }

    /// Gives the topmost directory what is its own: entries of archives have no such.
    fn root(&mut self, node: &Node<'_>) -> Result<()> {
        let path = Path::new("");
        let header = node.header(PathBuf::new());
        let header = header.map_err(|error| unreadable(path, error))?;
        let header = header.unwrap_or_else(|| Header::directory(""));
        self.mark(node, path)?;
        let sink = self.unpacker.sink;
        let dir = sink.open_dir(path)?;
        let end = self.unpacker.finish_open_dir(&dir, path, &header)?;
        let finish = || {
            if let Some(mode) = end.mode {
                sink.set_mode(Place::Dir(&dir), mode)?;
            }
            sink.set_time(Place::Dir(&dir), end.mtime)
        };
        finish().map_err(|errno| failed(path, errno))
    }

    /// Makes a directory opaque that is so in the image.
    fn mark(&mut self, node: &Node<'_>, path: &Path) -> Result<()> {
        let attributes = node.attributes();
        let attributes = attributes.map_err(|error| unreadable(path, error))?;
        if node.is_dir() && attributes.is_opaque() {
            let inside = path.join(OsStr::from_bytes(OPAQUE));
            let dir = self.unpacker.parent_of(&inside)?;
            self.unpacker.hide_all_beneath(self.form, &dir, path)?;
        }
        Ok(())
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::io(unpack_text(path), error)
}

/// What a file of an image holds.
struct NodeContent<'n, 'i> {
    node: &'n Node<'i>,
    segments: Vec<Segment>,
    /// Which of them is read, and how much of it was.
    current: usize,
    taken: u64,
}

impl Content for NodeContent<'_, '_> {
    fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl Read for NodeContent<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.segments.get(self.current) else {
            return Ok(0);
        };
        let rest = segment.length - self.taken;
        let wanted = rest.min(buffer.len() as u64) as usize;
        let offset = segment.offset + self.taken;
        let count = self.node.read(offset, &mut buffer[..wanted])?;
        if count < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.taken += count as u64;
        if self.taken == segment.length {
            (self.current, self.taken) = (self.current + 1, 0);
        }
        Ok(count)
    }
}
