//! The Dockerfile frontend: from a Dockerfile's text to an LLB graph and an image config. This
//! crate does no I/O; the engine reads the file, and finds base images as an [`ImageResolver`].
//!
//! - [`Dockerfile::parse`] reads the text: directives, heredocs, instructions.
//! - [`Dockerfile::base_images`] tells which images a build needs, so that they can be looked up
//!   all at once beforehand.
//! - [`Dockerfile::epoch_source`] tells what is to be asked for `SOURCE_DATE_EPOCH` first.
//! - [`Dockerfile::lower`] makes the graph, equal to BuildKit's to the byte, so that cache keys
//!   are BuildKit's too; [`Lowered`] also has the image config with its history, and for each
//!   vertex the instruction that it is made from.
//! - [`Dockerfile::outline`], [`Dockerfile::targets`] and [`describe`] answer BuildKit's subrequests:
//!   what a target takes, which targets there are, what can be asked; [`Answer`] has the two forms.
//! - [`Dockerfile::view`] shows it as it is written, to who would rather advise than build.
//! - [`Lowered::warnings`] has what the build checks find; their rules are [`Rule`].
//! - [`parse_ignore`] reads a `.dockerignore` file.
//!
//! ```
//! use larder_dockerfile::{Dockerfile, ImageRequest, ImageResolver, LowerOptions};
//! use larder_dockerfile::{ResolveError, ResolvedImage};
//!
//! struct NoImages;
//! impl ImageResolver for NoImages {
//!     fn resolve_image_config(&self, _: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
//!         Err("not found".into())
//!     }
//! }
//!
//! let dockerfile = Dockerfile::parse(b"FROM scratch\nCOPY . /app/\n", "Dockerfile").unwrap();
//! let lowered = dockerfile.lower(&LowerOptions::default(), &NoImages).unwrap();
//! assert_eq!(lowered.definition.vertices().len(), 2);
//! assert_eq!(lowered.config.history[0].created_by, "COPY . /app/ # buildkit");
//! ```
//!
//! **Limitations**: `RUN --device` and Windows images are refused with an error that says so. An
//! error of the parser hides what the build checks find elsewhere in the file.

mod args;
mod directive;
mod dockerfile;
mod error;
mod expand;
mod flags;
mod golang;
mod heredoc;
mod ignore;
mod instruction;
mod lint;
mod lower;
mod options;
mod parse;
mod path;
mod statement;
mod subrequest;
mod suggest;
mod view;

pub use directive::is_builtin as is_builtin_frontend;
pub use dockerfile::Dockerfile;
pub use error::{Error, ErrorKind};
pub use ignore::parse_ignore;
pub use lint::{Rule, Warning};
pub use lower::{EnvOrigin, EpochSource, HttpContext, Lowered, StepInfo, git_context};
pub use options::{
    ImageRequest, ImageResolver, LocalContext, LowerOptions, NamedContext, Network, NoCache,
    OciLayout, PathMatcher, ResolveError, ResolveMode, ResolvedImage, Resources, Ulimit,
};
pub use subrequest::{
    Answer, Outline, OutlineArg, OutlineCache, OutlineMount, Target, Targets, describe,
};
pub use view::{CommandView, CopyView, InstructionView, KindView, MountView, RunView, StageView};
