//! Compose files, as users write them.

mod errors;
mod hostile;
mod load;
mod support;
mod targets;
