//! How the API server reaches the agent of a node: logs, exec, attach and port-forward.
//!
//! The API server calls this; the node agent implements it in-process, and an HTTPS implementation may follow.
//! Invariant: streams are bounded by back-pressure (a slow client slows the container's output, memory does not grow).
//! Authorisation has been done by the caller; nothing here checks it again.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

/// Output of a container, as it comes.
pub type ByteStream = BoxStream<'static, Result<Bytes, GatewayError>>;

/// One pod, on the node that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    pub node: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// The query of `GET …/pods/NAME/log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Empty: the pod's only container.
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
}

/// A command to run (`exec`) or, with `command` None, the container's own process to join (`attach`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    pub pod: PodRef,
    pub container: String,
    pub command: Option<Vec<String>>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The open ends of an exec or attach. Dropping all of it ends the session.
pub struct ExecStreams {
    /// Shut it down to signal end of input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<ByteStream>,
    pub stderr: Option<ByteStream>,
    pub resize: Option<tokio::sync::mpsc::Sender<TerminalSize>>,
    /// The exit code, after all output has been handed over.
    pub exit: BoxFuture<'static, Result<i32, GatewayError>>,
}

/// What something used over a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// End of the window.
    pub at: Timestamp,
    /// Its length.
    pub window: std::time::Duration,
    /// Billionths of a processor, on average over the window.
    pub cpu_nanocores: u64,
    /// Working set at its end.
    pub memory_bytes: u64,
}

/// What the containers of one pod used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    pub namespace: String,
    pub name: String,
    pub containers: Vec<(String, Usage)>,
}

/// What a node and its pods used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeUsage {
    pub node: String,
    pub whole: Usage,
    pub pods: Vec<PodUsage>,
}

/// A two-way byte pipe to a port inside the pod.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why the node could not serve. `status` is the HTTP status to answer with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GatewayError {
    pub status: u16,
    pub message: String,
}

impl GatewayError {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }
}

#[async_trait::async_trait]
pub trait NodeGateway: Send + Sync {
    async fn logs(&self, pod: PodRef, options: LogOptions) -> Result<ByteStream, GatewayError>;
    async fn exec(&self, request: ExecRequest) -> Result<ExecStreams, GatewayError>;
    async fn attach(&self, request: ExecRequest) -> Result<ExecStreams, GatewayError>;
    async fn port_forward(&self, pod: PodRef, port: u16) -> Result<Box<dyn Duplex>, GatewayError>;

    /// What every reachable node uses now; measured when it is asked for.
    async fn usage(&self) -> Result<Vec<NodeUsage>, GatewayError> {
        Err(GatewayError::new(503, "no node measures its pods"))
    }
}
