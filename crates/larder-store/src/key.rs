//! Cache keys: BuildKit's model of equivalence classes and links.

mod export;
mod link;
mod record;

pub use export::ExportedRecord;
pub(crate) use record::find_matches;
pub use record::{CacheKey, KeyDep, KeyMatch, NewKey, ResultInfo, SaveMode, Saved};
