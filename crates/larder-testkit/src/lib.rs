//! Development only: scratch state roots, fixtures, the end-to-end harness.
