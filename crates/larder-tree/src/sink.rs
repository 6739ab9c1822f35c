//! Where trees are made: in a directory, or in the image of a file system.
//!
//! The rules of layers and of COPY hold for both, and are written once, against [`Sink`].

use crate::beneath::Root;
use crate::erofs::Image;

/// A tree in the making: a directory, held by its [`Root`], or an [`Image`]. Only this crate
/// implements it.
pub trait Sink: sealed::Sealed {}

mod sealed {
    /// Keeps others from implementing a sink.
    pub trait Sealed {}
}

impl Sink for Root {}
impl Sink for Image {}
impl sealed::Sealed for Root {}
impl sealed::Sealed for Image {}
