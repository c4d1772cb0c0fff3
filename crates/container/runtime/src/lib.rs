//! Bundle to process, on the kernel, as the OCI runtime specification (1.2, Linux) says.
//!
//! [`compile`] turns a specification into a [`Plan`]: everything checked and translated to the kernel's terms, in the engine, where
//! there is time and an error is cheap. [`container::create`] and [`exec::start`] carry a plan out; they run in a monitor (one thread) and
//! fork the process that becomes the container's. Invariant: whatever is below the container's root is resolved inside that root by the
//! kernel, through descriptors, once. Deliberately absent: logs, exit records and everything else that lives longer than a start (`monitor`).

mod compile;
pub mod container;
pub mod exec;
mod failure;
pub mod hooks;
mod init;
mod options;
mod plan;
pub mod seccomp;

pub use compile::{compile, compile_process, resources};
pub use failure::{Failure, FailureKind};
pub use plan::{IdMap, Join, Mount, MountSource, Node, Plan, ProcessPlan, RootFs, SpreadChange};

/// Every mount option that has a meaning here.
pub fn mount_options() -> Vec<String> {
    options::known()
}
