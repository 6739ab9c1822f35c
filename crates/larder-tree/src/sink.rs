//! Where trees are made: in a directory, in one that overlayfs will show upon others, or in the image of a
//! file system.
//!
//! The rules of layers and of COPY hold for all, and are written once, against [`Sink`].

mod directory;
pub(crate) mod operations;
mod upper;
pub(crate) mod walk;

use crate::beneath::Root;
use crate::erofs::Image;
use crate::overlay::Upper;

/// A tree in the making: a directory, held by its [`Root`], an [`Upper`] one, or an [`Image`]. Only this
/// crate implements it.
pub trait Sink: operations::Operations {}

impl Sink for Root {}
impl Sink for Upper {}
impl Sink for Image {}
