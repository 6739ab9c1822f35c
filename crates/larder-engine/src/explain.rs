//! Why a step was not cached: what its key was made of now, against what it was made of when the
//! same step last ran.

mod counterparts;
mod difference;
mod parts;

pub(crate) use counterparts::counterparts;
pub(crate) use difference::{base_variable_difference, difference, source_difference};
pub(crate) use parts::{
    BasePart, EnvPart, InputPart, ShortDigest, SourcePart, StepParts, fields, platform, short,
};
