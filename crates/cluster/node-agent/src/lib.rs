//! The shell around pod-plan; speaks CRI.
