//! Processes that join a running container, and the streams of attach and exec.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;

use crate::{Engine, error::Result};

/// Which output a chunk is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output (everything, with a terminal).
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone)]
pub struct Frame {
    /// From where.
    pub channel: Channel,
    /// The bytes.
    pub data: Bytes,
}

/// The two directions of an attached process. Dropping `stdin` closes it (half-close).
pub struct Streams {
    /// Present when input was asked for and the process has one.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Ends when the process's output ends.
    pub output: BoxStream<'static, Frame>,
}

/// What to attach.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachOptions {
    /// Input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Output from the log first.
    pub logs: bool,
    /// New output.
    pub stream: bool,
}

/// A process to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecConfig {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// The container's user when empty.
    pub user: String,
    /// The container's directory when empty.
    pub working_dir: String,
    /// With a terminal.
    pub tty: bool,
    /// With all capabilities.
    pub privileged: bool,
    /// Input, output, error wanted.
    pub attach_stdin: bool,
    /// Standard output wanted.
    pub attach_stdout: bool,
    /// Standard error wanted.
    pub attach_stderr: bool,
    /// Initial terminal size: columns, rows.
    pub console_size: Option<(u16, u16)>,
    /// Docker's detach keys, as text; kept for inspect.
    pub detach_keys: String,
}

/// State of an exec.
#[derive(Debug, Clone)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    /// Container's ID.
    pub container: String,
    /// As asked.
    pub config: ExecConfig,
    /// Runs now.
    pub running: bool,
    /// Set once it ended.
    pub exit_code: Option<i32>,
    /// Process ID on the host, 0 before the start.
    pub pid: i32,
}

impl Engine {
    /// Prepares an exec; nothing runs yet.
    pub async fn exec_create(&self, container: &str, config: ExecConfig) -> Result<String> {
        let _ = (container, config);
        todo!()
    }

    /// Starts a prepared exec and attaches to it.
    pub async fn exec_start(&self, exec: &str) -> Result<Streams> {
        let _ = exec;
        todo!()
    }

    /// State of an exec.
    pub fn exec_inspect(&self, exec: &str) -> Result<Exec> {
        let _ = exec;
        todo!()
    }

    /// Waits for a started exec's end: its exit code.
    pub async fn exec_wait(&self, exec: &str) -> Result<i32> {
        let _ = exec;
        todo!()
    }

    /// Resizes an exec's terminal.
    pub async fn exec_resize(&self, exec: &str, cols: u16, rows: u16) -> Result<()> {
        let _ = (exec, cols, rows);
        todo!()
    }
}
