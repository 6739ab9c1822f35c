//! Cache maps.
