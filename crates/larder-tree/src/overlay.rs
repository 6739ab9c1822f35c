//! What overlayfs shows of layers, without a mount of them.
//!
//! A mount costs the kernel as much as it has layers, and a step that copies one file needs to know
//! of one name in one directory what lies beneath. [`Lower`] answers that: it reads the directories
//! that are asked for, layer by layer, once, and remembers the names. [`Upper`] is a directory that
//! is written upon such layers, with the marks that overlayfs would leave in it.
//!
//! | in a layer | what is seen |
//! | --- | --- |
//! | a directory, where those beneath have one too | the entries of all, each as in the topmost that has it |
//! | a directory with the mark "opaque" | nothing from beneath |
//! | a whiteout (device 0:0) | nothing |
//! | anything else | itself; no directory beneath it shows |
//!
//! **Limitations**: what overlayfs' `redirect_dir` and `metacopy` features leave in layers is not
//! understood. A new directory gets the mark "opaque" only where it hides something; overlayfs sets it
//! more often, as a hint for itself.

mod directory;
mod index;
mod lower;
mod upper;

pub(crate) use directory::LayerDir;
pub use lower::{Layer, Lower};
pub use upper::{Marks, Upper, UpperDir};
