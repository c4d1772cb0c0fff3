//! Bundle to process, on the kernel: create, start, exec, kill, delete.

mod failure;

pub use failure::{Failure, FailureKind};
