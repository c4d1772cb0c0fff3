//! The engine's side of a running monitor: one short connection for each thing that is asked.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::BytesMut;
use oci::runtime_spec;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    AttachOptions, Attached, Error, ExitStatus, exit_status,
    protocol::{self, HEADER, Kind, Request, Response, SocketPath},
    stdio::{OutputStream, StdinWriter},
};

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
    /// Take it to stream; dropped, the process goes on and its output is discarded.
    pub stdio: Option<Attached>,
    handle: Handle,
}

impl ExecHandle {
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        self.handle.done(&Request::Resize { process: Some(self.id.clone()), columns, rows }).await
    }

    /// Signals the exec's own process.
    pub async fn kill(&self, signal: i32) -> Result<(), Error> {
        self.handle.done(&Request::Kill { signal, all: false, process: Some(self.id.clone()) }).await
    }

    /// How it ended; may be asked any number of times while the container runs.
    pub async fn wait(&self) -> Result<ExitStatus, Error> {
        match self.handle.ask(&Request::Wait { process: Some(self.id.clone()) }).await? {
            Response::Exit(status) => Ok(status),
            other => Err(self.handle.unexpected(other, Some(&self.id))),
        }
    }
}

/// A running monitor, found by its container's directory. Holds no connection: cheap to clone and to keep.
#[derive(Debug, Clone)]
pub struct Handle {
    dir: PathBuf,
}

/// What a monitor says of itself (adoption after a restart).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorState {
    pub init_pid: i32,
    pub monitor_pid: i32,
    pub started: bool,
}

impl Handle {
    pub(crate) fn new(dir: &Path) -> Self {
        Handle { dir: dir.to_path_buf() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Finds the monitor of the container in `dir`; [`Error::Gone`] when there is none (then see [`crate::exit_status`]).
    pub async fn open(dir: &Path) -> Result<Handle, Error> {
        let handle = Handle::new(dir);
        handle.connect().await?;
        Ok(handle)
    }

    pub async fn state(&self) -> Result<MonitorState, Error> {
        match self.ask(&Request::State).await? {
            Response::State(state) => Ok(state),
            other => Err(self.unexpected(other, None)),
        }
    }

    /// Opens the gate. A program that cannot be executed is an [`Error::Refused`] and the container then has exited.
    pub async fn start(&self) -> Result<(), Error> {
        self.done(&Request::Start).await
    }

    /// May be called before `start`: nothing of the output is missed then.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attached, Error> {
        let AttachOptions { stdin, stdout, stderr } = options;
        let (_, attached) = self.stream(&Request::Attach { process: None, stdin, stdout, stderr }, None).await?;
        Ok(attached)
    }

    pub async fn exec(&self, exec: &ExecSpec) -> Result<ExecHandle, Error> {
        let plan = Box::new(runtime::compile_process(&exec.process).map_err(Error::Refused)?);
        let request = Request::Exec { id: exec.id.clone(), plan, stdin: exec.stdin, unconfined: exec.unconfined };
        let (pid, attached) = self.stream(&request, Some(&exec.id)).await?;
        Ok(ExecHandle { pid, id: exec.id.clone(), stdio: Some(attached), handle: self.clone() })
    }

    /// The exec `id` after a restart of the engine; its output from here on.
    pub async fn adopt_exec(&self, id: &str) -> Result<ExecHandle, Error> {
        let request = Request::Attach { process: Some(id.to_owned()), stdin: true, stdout: true, stderr: true };
        let (pid, attached) = self.stream(&request, Some(id)).await?;
        Ok(ExecHandle { pid, id: id.to_owned(), stdio: Some(attached), handle: self.clone() })
    }

    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        self.done(&Request::Resize { process: None, columns, rows }).await
    }

    /// `all` signals every process of the container's cgroup.
    pub async fn kill(&self, signal: i32, all: bool) -> Result<(), Error> {
        self.done(&Request::Kill { signal, all, process: None }).await
    }

    /// From the monitor, or from exit.json when it is gone.
    pub async fn wait(&self) -> Result<ExitStatus, Error> {
        match self.ask(&Request::Wait { process: None }).await {
            Ok(Response::Exit(status)) => Ok(status),
            Ok(other) => Err(self.unexpected(other, None)),
            Err(gone @ Error::Gone { .. }) => exit_status(&self.dir)?.ok_or(gone),
            Err(other) => Err(other),
        }
    }

    pub async fn reopen_log(&self) -> Result<(), Error> {
        self.done(&Request::ReopenLog).await
    }

    async fn done(&self, request: &Request) -> Result<(), Error> {
        match self.ask(request).await? {
            Response::Done => Ok(()),
            other => Err(self.unexpected(other, None)),
        }
    }

    fn unexpected(&self, response: Response, exec: Option<&str>) -> Error {
        match response {
            Response::Failed(failure) => Error::Refused(failure),
            Response::NoSuchExec => Error::NoSuchExec(exec.unwrap_or_default().to_owned()),
            other @ (Response::Done | Response::State(_) | Response::Attached { .. } | Response::Exit(_)) => {
                Error::Protocol(format!("{other:?}"))
            }
        }
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::Gone { dir: self.dir.clone() },
            _other => self.io("connect to the monitor in", error),
        };
        let path = SocketPath::new(&self.dir).map_err(gone)?;
        UnixStream::connect(path.path()).await.map_err(gone)
    }

    fn io(&self, what: &'static str, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Error::Gone { dir: self.dir.clone() }
            }
            _other => Error::Io { what, path: self.dir.clone(), source },
        }
    }

    async fn send(&self, request: &Request) -> Result<UnixStream, Error> {
        let mut socket = self.connect().await?;
        let payload = serde_json::to_vec(request).map_err(|error| Error::Protocol(error.to_string()))?;
        socket
            .write_all(&protocol::frame(Kind::Request, &payload))
            .await
            .map_err(|error| self.io("write to the monitor in", error))?;
        Ok(socket)
    }

    async fn response(&self, socket: &mut UnixStream) -> Result<Response, Error> {
        let mut header = [0; HEADER];
        let read = |error| self.io("read from the monitor in", error);
        socket.read_exact(&mut header).await.map_err(read)?;
        let Some((Kind::Response, length)) = protocol::parse_header(header) else {
            return Err(Error::Protocol(format!("frame {header:?}")));
        };
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await.map_err(read)?;
        serde_json::from_slice(&payload).map_err(|error| Error::Protocol(error.to_string()))
    }

    async fn ask(&self, request: &Request) -> Result<Response, Error> {
        let mut socket = self.send(request).await?;
        self.response(&mut socket).await
    }

    async fn stream(&self, request: &Request, exec: Option<&str>) -> Result<(i32, Attached), Error> {
        let mut socket = self.send(request).await?;
        match self.response(&mut socket).await? {
            Response::Attached { pid, stdin } => {
                let (read, write) = socket.into_split();
                let (writer, unused) = if stdin { (Some(StdinWriter::new(write)), None) } else { (None, Some(write)) };
                Ok((pid, Attached { stdin: writer, output: OutputStream::new(read, BytesMut::new(), unused) }))
            }
            other => Err(self.unexpected(other, exec)),
        }
    }
}
