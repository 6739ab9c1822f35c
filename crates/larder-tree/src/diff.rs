//! Layers made of the changes of a tree.
//!
//! [`write_layer`] packs what an overlay's upper directory, the image of a layer, or a tree compared with
//! another, changed: the entries in the order of their names, directory by directory; a whiteout for what
//! is gone; and before each entry the directories that lead to it. The bytes are those that
//! BuildKit makes of the same tree, and the same on every run.
//!
//! | what | in the layer |
//! | --- | --- |
//! | directory that only leads to changes | as entry, with its own attributes |
//! | directory copied up but unchanged | no entry |
//! | file copied up but unchanged | no entry |
//! | removed file or directory | `.wh.name`, with mode, owner and time 0 |
//! | replaced ("opaque") directory | whiteouts for what is gone, entries for what differs |
//! | second name of a file of the layer | hard link |
//! | socket | no entry |
//! | `user.*` attributes and file capabilities | kept; BuildKit drops the former |
//! | overlayfs' own attributes | dropped |
//!
//! **Limitations**: overlayfs' `redirect_dir` and `metacopy` features must be off in the upper
//! directory; what they leave is refused. Directories may be nested 400 levels deep.

mod changes;
mod digest_writer;
mod layer;
mod merged;
mod node;
mod upper;

pub use changes::{LayerOptions, LayerStats, Style, write_layer, write_layer_upon, write_trees};
pub use digest_writer::DigestWriter;
pub(crate) use node::Node;
pub use upper::Upper;
