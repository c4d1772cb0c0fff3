//! What can go wrong in the engine, by the kind of answer that a client should get.
//!
//! Called by every module of the crate; `docker-api` maps a [`Kind`] to an HTTP status and `cri` to a gRPC
//! code, once, at the edge. The text is Docker's own wherever clients parse it. Paths and causes ride along
//! in the text so that one line is enough to act on.

use std::path::PathBuf;

/// The class of an error: decides the status on the wire, never the wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The named object is not there (404).
    NotFound,
    /// The request itself is wrong (400).
    Invalid,
    /// The request clashes with what is there (409).
    Conflict,
    /// Nothing had to be done (304).
    NotModified,
    /// Forbidden whatever the parameters (403).
    Forbidden,
    /// Asked of something that this engine does not have (501).
    Unsupported,
    /// The engine or the kernel failed (500).
    System,
}

/// An engine error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No container by that name or ID.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// No image by that name or ID.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// No exec instance by that ID.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// No sandbox by that ID.
    #[error("No such sandbox: {0}")]
    NoSuchSandbox(String),
    /// A path that is not in the container.
    #[error("Could not find the file {path} in container {container}")]
    NoSuchPath {
        /// The container asked.
        container: String,
        /// The path asked for.
        path: String,
    },
    /// The ID prefix fits several containers.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// The name is taken.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name, without its slash.
        name: String,
        /// ID of the container that has it.
        holder: String,
    },
    /// The container does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The process could not be started; the code is what `docker run` exits with.
    #[error("failed to create task for container: failed to create shim task: OCI runtime create failed: {message}")]
    StartFailed {
        /// The runtime's own words.
        message: String,
        /// 126 not executable, 127 not found, 128 anything else.
        exit_code: i32,
    },
    /// An exec's process could not be started.
    #[error("OCI runtime exec failed: {message}")]
    ExecFailed {
        /// The runtime's own words.
        message: String,
        /// 126 not executable, 127 not found, 128 anything else.
        exit_code: i32,
    },
    /// Already as asked.
    #[error("{0}")]
    NotModified(String),
    /// A wrong parameter.
    #[error("{0}")]
    Invalid(String),
    /// A missing object of another part (network, volume).
    #[error("{0}")]
    NotFound(String),
    /// A clash with another object.
    #[error("{0}")]
    Conflict(String),
    /// Not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// Not offered.
    #[error("{0}")]
    Unsupported(String),
    /// A file operation failed.
    #[error("{action} {}: {cause}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The kernel's answer.
        cause: String,
    },
    /// Another part failed.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSuchContainer(_)
            | Error::NoSuchImage(_)
            | Error::NoSuchExec(_)
            | Error::NoSuchSandbox(_)
            | Error::NoSuchPath { .. }
            | Error::NotFound(_) => Kind::NotFound,
            Error::NameTaken { .. } | Error::NotRunning(_) | Error::Conflict(_) => Kind::Conflict,
            Error::Ambiguous(_) | Error::Invalid(_) | Error::StartFailed { .. } | Error::ExecFailed { .. } => {
                Kind::Invalid
            }
            Error::NotModified(_) => Kind::NotModified,
            Error::Forbidden(_) => Kind::Forbidden,
            Error::Unsupported(_) => Kind::Unsupported,
            Error::File { .. } | Error::System(_) => Kind::System,
        }
    }

    /// Wraps a failed file operation.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, cause: impl std::fmt::Display) -> Self {
        Error::File { action, path: path.into(), cause: cause.to_string() }
    }

    /// Wraps another part's failure, with what was being done.
    pub(crate) fn system(doing: &str, cause: impl std::fmt::Display) -> Self {
        Error::System(format!("{doing}: {cause}"))
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
