use crate::runner::Case;
pub const CASES: &[Case] = &[];
pub const PARTS: &[Case] = &[];
