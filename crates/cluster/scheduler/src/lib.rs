//! The shell around scheduling.
