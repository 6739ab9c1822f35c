//! The build scheduler: a pure state machine over cache keys. It decides what is looked up,
//! digested, executed and saved, and in which order; it knows no containers, no disk and no wire
//! format, and has no threads, clock or I/O.
//!
//! A driver feeds [`Event`]s to [`Solver::step`] and performs the [`Command`]s it gets back,
//! answering each that has a [`RequestId`]. Jobs share the vertices that they have in common.
//! Results are names that the driver understands (`R`), as are failures (`E`).
//!
//! Of each vertex the solver first wants a key, not a result: it looks records up by the *fast
//! keys* of the inputs; if that fails, by *content keys* (digests of what the step reads of an
//! input); if that fails, it has the vertex executed. Results of inputs are asked for only where
//! one of the last two needs them, so that a hit materialises nothing.
//!
//! ```
//! use larder_oci::Digest;
//! use larder_solver::{
//!     CacheMap, Command, Edge, Error, Event, JobId, Match, KeyId, Options, Outcome, Solver,
//!     VertexSpec,
//! };
//!
//! let mut solver: Solver<&str, Error> = Solver::new(Options::default());
//! let image = Digest::sha256("docker-image://alpine");
//! let source = VertexSpec {
//!     digest: image.clone(),
//!     inputs: vec![],
//!     ignore_cache: false,
//!     limited: false,
//! };
//! let targets = vec![Edge { vertex: image, output: 0 }];
//! let mut commands = solver.step(Event::AddJob { job: JobId(1), vertices: vec![source], targets });
//! while let Some(command) = commands.pop() {
//!     match command {
//!         Command::ComputeCacheMap { request, .. } => {
//!             let map = CacheMap::Root { keys: vec![Digest::sha256("the manifest")] };
//!             commands.extend(solver.step(Event::CacheMap { request, map }));
//!         }
//!         Command::Query { request, .. } => {
//!             let matches = vec![Match { key: KeyId(1), result: Some("the image") }];
//!             commands.extend(solver.step(Event::Queried { request, matches, linked: vec![] }));
//!         }
//!         Command::JobDone { outcome: Outcome::Built(targets), .. } => {
//!             assert_eq!(targets[0].result, "the image");
//!         }
//!         _ => {}
//!     }
//! }
//! solver.step(Event::CloseJob { job: JobId(1) });
//! assert!(solver.is_idle());
//! ```
//!
//! **Limitations**: work that turns out to be useless within a job that goes on is not given up.
//! A target's result that is lost after [`Command::JobDone`] needs a new job. The record of an
//! input that has neither a definition key nor a content key is never found again.

mod command;
mod error;
mod event;
mod key;
mod solver;

pub use command::{Command, Failure, MissReason, MissedInput, Outcome, Progress, SaveMode, Target};
pub use error::{Error, ErrorKind};
pub use event::{Edge, Event, JobId, Match, RequestId, VertexSpec};
pub use key::{CacheKey, CacheMap, Candidate, InputMap, KeyId};
pub use solver::{Options, Solver};
