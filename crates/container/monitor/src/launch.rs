//! What the engine asks for when it creates a container, and what it gets back.

use std::path::PathBuf;

use oci::runtime_spec;
use runtime::RootFs;
use serde::{Deserialize, Serialize};

/// Everything that a monitor needs to know to make one container.
#[derive(Debug, Clone)]
pub struct Launch {
    pub id: String,
    /// `<root>/containers/<id>`; must exist, mode 0700. Socket, exit record and attach spill files live here.
    pub dir: PathBuf,
    pub spec: runtime_spec::Spec,
    pub rootfs: RootFs,
    /// Path below every controller hierarchy, such as `/gantry/<id>` or `/gantry/pod<uid>/<id>`.
    pub cgroup: String,
    pub terminal: bool,
    pub open_stdin: bool,
    /// Stdin closes for good when the first attached client that sent input goes away.
    pub stdin_once: bool,
    /// A first process that is not the program (`docker run --init`).
    pub init: bool,
    pub log: LogPolicy,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogPolicy {
    pub format: LogFormat,
    /// The log file (`<id>-json.log` for Docker, `<n>.log` for CRI). Ignored for [`LogFormat::None`].
    pub path: PathBuf,
    /// Rotate (Docker's `max-size`) when the file has reached this many bytes.
    pub max_size_bytes: Option<u64>,
    /// How many files to keep, the current one included (Docker's `max-file`); 1 truncates.
    pub max_files: u32,
}

impl LogPolicy {
    /// Output goes to attached clients only.
    pub fn none() -> Self {
        LogPolicy { format: LogFormat::None, path: PathBuf::new(), max_size_bytes: None, max_files: 1 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Docker's json-file: `{"log":"…\n","stream":"stdout","time":"…Z"}`.
    JsonFile,
    /// The kubelet's: `<time> stdout F <line>`.
    Cri,
    None,
}

/// A container whose init waits at the gate for [`crate::Handle::start`].
#[derive(Debug)]
pub struct Created {
    pub init_pid: i32,
    pub monitor_pid: i32,
    pub handle: crate::Handle,
}

/// What can go wrong between the engine and a monitor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {path}: {source}", path = .path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    /// The container could not be made or started; the message is in runc's wording, which Docker clients map to an exit code.
    #[error("{0}")]
    Refused(runtime::Failure),
    #[error("the monitor of {dir} is gone", dir = .dir.display())]
    Gone { dir: PathBuf },
    #[error("no such exec: {0}")]
    NoSuchExec(String),
    #[error("zygote: {what}: {source}")]
    Zygote { what: &'static str, source: std::io::Error },
    #[error("unexpected answer from the monitor: {0}")]
    Protocol(String),
}
