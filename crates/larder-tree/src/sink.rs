//! Where trees are made: in a directory, or in the image of a file system.
//!
//! The rules of layers and of COPY hold for both, and are written once, against [`Sink`].

mod directory;
pub(crate) mod operations;

use crate::beneath::Root;
use crate::erofs::Image;

/// A tree in the making: a directory, held by its [`Root`], or an [`Image`]. Only this crate
/// implements it.
pub trait Sink: operations::Operations {}

impl Sink for Root {}
impl Sink for Image {}
