//! Solver: a pure state machine over cache keys.
