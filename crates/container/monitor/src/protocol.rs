//! What travels on a monitor's socket: frames of a kind, a length and that many bytes.
//!
//! The first frame from a client is a [`Request`], the first back a [`Response`], both JSON. After an attach the same connection
//! carries output one way and input the other. A monitor may be older than the engine that talks to it (it survived an upgrade),
//! so requests only ever gain fields with defaults.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use runtime::{Failure, ProcessPlan};
use serde::{Deserialize, Serialize};

use crate::{ExitStatus, MonitorState};

pub(crate) const SOCKET_NAME: &str = "monitor.sock";

/// No frame is longer; an exec's environment is the largest that is sent.
pub(crate) const FRAME_LIMIT: usize = 4 << 20;
pub(crate) const HEADER: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Stdin,
    Stdout,
    Stderr,
    StdinEnd,
    Request,
    Response,
}

impl Kind {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Kind::Stdin => 0,
            Kind::Stdout => 1,
            Kind::Stderr => 2,
            Kind::StdinEnd => 3,
            Kind::Request => 4,
            Kind::Response => 5,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Kind::Stdin, Kind::Stdout, Kind::Stderr, Kind::StdinEnd, Kind::Request, Kind::Response]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

pub(crate) fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind.byte(), length[0], length[1], length[2], length[3]]
}

pub(crate) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, payload.len()).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// The kind and length that a header announces; `None` for what no peer of ours sends.
pub(crate) fn parse_header(bytes: [u8; HEADER]) -> Option<(Kind, usize)> {
    let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
    Kind::from_byte(bytes[0]).filter(|_| length <= FRAME_LIMIT).map(|kind| (kind, length))
}

/// `process` names an exec; without it the container itself is meant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    State,
    Start,
    Attach { process: Option<String>, stdin: bool, stdout: bool, stderr: bool },
    Exec { id: String, plan: Box<ProcessPlan>, stdin: bool, unconfined: bool },
    Resize { process: Option<String>, columns: u16, rows: u16 },
    /// `process` alone when it is named, the container's first process otherwise; `all` is every process of the container.
    Kill {
        signal: i32,
        all: bool,
        #[serde(default)]
        process: Option<String>,
    },
    Wait { process: Option<String> },
    ReopenLog,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    State(MonitorState),
    /// The rest of the connection is streams; whether input is taken.
    Attached {
        pid: i32,
        stdin: bool,
    },
    Exit(ExitStatus),
    Failed(Failure),
    NoSuchExec,
}

/// A path to the socket in `dir` that fits a socket address however long `dir` is: through the descriptor of the directory, which must live as long.
pub(crate) struct SocketPath {
    dir: File,
}

impl SocketPath {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        Ok(SocketPath { dir: File::open(dir)? })
    }
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", self.dir.as_raw_fd()))
    }
}
