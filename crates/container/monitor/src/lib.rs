//! The small process beside each container: its stdio, its log, its exit code.
//!
//! Three roles live here, and one client:
//! - [`Zygote`]: a small single-threaded process, spawned before any thread exists, that forks monitors.
//! - the monitor (module `serve`): one per container; it outlives the engine, owns the container's stdio, writes its
//!   log, answers on `<dir>/monitor.sock`, records the exit in `<dir>/exit.json` and leaves.
//! - [`Handle`]: what the engine holds of a running monitor; opened again by directory after a restart.
//!
//! Invariant: killing the engine at any moment stops no container, loses no log line and no exit code.

mod client;
mod exit;
mod launch;
mod log;
mod protocol;
mod serve;
mod stdio;
mod zygote;

pub use client::{ExecHandle, ExecSpec, Handle, MonitorState};
pub use exit::{ExitStatus, delete, exit_status};
pub use launch::{Created, Error, Launch, LogFormat, LogPolicy};
pub use runtime::{Failure, FailureKind, RootFs};
pub use stdio::{AttachOptions, Attached, Frame, OutputStream, StdStream, StdinWriter};
pub use zygote::{Zygote, run_role_if_asked};
