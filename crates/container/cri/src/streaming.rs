//! Exec, attach and port-forward as direct streams.
//!
//! CRI hands out URLs for these; in one process a URL would be a detour, so the node agent uses this trait
//! instead. Invariant: dropping a [`Session`] ends the streams, never the container. Output order within
//! one stream is the process's own.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::{Result, v1};

/// Output of a process.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A connection into a sandbox.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The streams of one exec or attach. Those that were not asked for are `None`.
pub struct Session {
    /// Input; shutting it down closes the process's stdin.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Output (with a terminal: all output).
    pub stdout: Option<ByteStream>,
    /// Errors; never with a terminal.
    pub stderr: Option<ByteStream>,
    /// Terminal sizes; ignored without a terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// The exit code. For attach: of the container.
    pub exit: BoxFuture<'static, Result<i32>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .finish_non_exhaustive()
    }
}

/// The three streaming calls.
#[async_trait]
pub trait Streaming: Send + Sync + 'static {
    /// Starts a command in a running container.
    async fn exec(&self, request: v1::ExecRequest) -> Result<Session>;
    /// Joins the streams of a running container.
    async fn attach(&self, request: v1::AttachRequest) -> Result<Session>;
    /// Connects to a port inside the sandbox (its loopback).
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>>;
}
