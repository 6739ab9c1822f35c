//! Path patterns.
//!
//! Two dialects are in use, both defined by Go libraries that Docker is built on:
//!
//! - [`Glob`] is Go's `path.Match`: `*`, `?`, `[a-z]` and `\`, none of which but a class crosses a
//!   `/`. Sources of COPY are globs.
//! - [`PatternMatcher`] is the dialect of `.dockerignore`, of `--exclude` and of include patterns:
//!   a list of globs with `**` for any depth, `!` for exceptions, and a rule that a pattern which
//!   matches a directory matches all that is beneath it.
//!
//! Paths are byte strings with `/` between names and no `/` in front.
//!
//! ```
//! use larder_tree::pattern::{Glob, PatternMatcher};
//!
//! assert!(Glob::new("*.p[yx]").unwrap().matches(b"main.py"));
//!
//! let ignored = PatternMatcher::new(["**/node_modules", "*.log", "!keep.log"]).unwrap();
//! assert!(ignored.matches_or_parent_matches(b"web/node_modules/left-pad/index.js"));
//! assert!(!ignored.matches_or_parent_matches(b"keep.log"));
//! ```
//!
//! **Limitations**: moby's matcher turns a pattern into a regular expression and lets some of its
//! syntax through. Here `[…]` and `\` mean in a [`PatternMatcher`] what they mean in a [`Glob`], so
//! `\d` is the letter `d` and `[*?]` is a star or a question mark.

mod automaton;
mod clean;
mod glob;
mod ignore;

pub(crate) use clean::clean_rooted;
pub(crate) use glob::split_wildcards;
pub use glob::{Glob, has_wildcards};
pub use ignore::{MatchInfo, PatternMatcher, read_ignore_file};
