//! What can go wrong, in runc's words where engines look for them.

use std::{io, path::PathBuf};

use runtime::Failure;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{0} is not supported by this runtime")]
    Unsupported(&'static str),
    #[error("{what} {path}: {source}", path = .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is not what this runtime wrote or can read: {source}", path = .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("invalid container ID format: {0:?}")]
    InvalidId(String),
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    #[error("container {0:?} does not exist")]
    NoSuchContainer(String),
    #[error("container not running")]
    NotRunning,
    /// The container is in a state that the verb does not go with.
    #[error("{0}")]
    WrongStatus(String),
    #[error("gantry-runtime create failed: unable to start container process: {0}")]
    Create(Failure),
    #[error("exec failed: unable to start container process: {0}")]
    Exec(Failure),
    #[error("{0}")]
    Refused(#[from] Failure),
    #[error("{0}")]
    Cgroup(#[from] kernel::cgroup::Error),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Error::Io { what, path: path.into(), source: source.into() }
    }
}
