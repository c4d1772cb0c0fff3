//! The engine's side of a running monitor.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use oci::runtime_spec;

use crate::{Error, ExitStatus};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub stream: StdStream,
    pub data: Bytes,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// An attached client. Dropping it detaches; the process goes on.
#[derive(Debug)]
pub struct Attached {
    /// `Some` when stdin was asked for and the process has one. `shutdown()` is the half-close.
    pub stdin: Option<StdinWriter>,
    /// Ends when the process has exited and all its output was delivered.
    pub output: OutputStream,
}

/// Implements [`tokio::io::AsyncWrite`].
#[derive(Debug)]
pub struct StdinWriter {}

/// A [`futures_util::Stream`] of `io::Result<Frame>`.
#[derive(Debug)]
pub struct OutputStream {}

impl futures_util::Stream for OutputStream {
    type Item = io::Result<Frame>;
    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        todo!()
    }
}

/// A new process in a running container.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// Chosen by the caller; names the exec for `resize`, `wait` and adoption.
    pub id: String,
    /// args, env, cwd, user, capabilities, no_new_privileges, rlimits; `terminal` decides between pty and pipes.
    pub process: runtime_spec::Process,
    pub stdin: bool,
    /// `docker exec --privileged`: leave the container's seccomp filter off.
    pub unconfined: bool,
}

#[derive(Debug)]
pub struct ExecHandle {
    pub pid: i32,
    pub id: String,
    /// Take it to stream; dropping it leaves the process running (its output is then discarded).
    pub stdio: Option<Attached>,
}

impl ExecHandle {
    pub async fn resize(&self, _cols: u16, _rows: u16) -> Result<(), Error> {
        todo!()
    }
    pub async fn wait(&self) -> Result<ExitStatus, Error> {
        todo!()
    }
}

/// A running monitor, found by its container's directory. Holds no connection: cheap to clone and to keep.
#[derive(Debug, Clone)]
pub struct Handle {
    dir: PathBuf,
}

/// What a monitor says of itself (adoption after a restart).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorState {
    pub init_pid: i32,
    pub monitor_pid: i32,
    pub started: bool,
}

impl Handle {
    /// Finds the monitor of the container in `dir`; [`Error::Gone`] when there is none (then see [`crate::exit_status`]).
    pub async fn open(_dir: &Path) -> Result<Handle, Error> {
        todo!()
    }
    pub async fn state(&self) -> Result<MonitorState, Error> {
        todo!()
    }
    /// Opens the gate. A program that cannot be executed is an [`Error::Refused`] and the container then has exited.
    pub async fn start(&self) -> Result<(), Error> {
        todo!()
    }
    /// May be called before `start`: nothing of the output is missed then.
    pub async fn attach(&self, _options: AttachOptions) -> Result<Attached, Error> {
        todo!()
    }
    pub async fn exec(&self, _exec: &ExecSpec) -> Result<ExecHandle, Error> {
        todo!()
    }
    /// The exec `id` after a restart of the engine.
    pub async fn adopt_exec(&self, _id: &str) -> Result<ExecHandle, Error> {
        todo!()
    }
    pub async fn resize(&self, _cols: u16, _rows: u16) -> Result<(), Error> {
        todo!()
    }
    /// `all` signals every process of the container's cgroup.
    pub async fn kill(&self, _signal: i32, _all: bool) -> Result<(), Error> {
        todo!()
    }
    /// From the monitor, or from exit.json when it is gone.
    pub async fn wait(&self) -> Result<ExitStatus, Error> {
        todo!()
    }
    pub async fn reopen_log(&self) -> Result<(), Error> {
        todo!()
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
