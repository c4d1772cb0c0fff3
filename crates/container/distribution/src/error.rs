//! Failures of pulls, pushes and archives, in the words that Docker's daemon uses: clients show and parse them.

use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Content(#[from] content::Error),
    #[error(transparent)]
    Snapshots(#[from] snapshots::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{}: {source}", path.display())]
    File { path: std::path::PathBuf, source: io::Error },
    #[error("{method} \"{url}\": {reason}")]
    Unreachable { method: http::Method, url: String, reason: String },
    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    ManifestUnknown(String),
    #[error(
        "{0} access denied for {1}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
    )]
    Denied(&'static str, String),
    #[error("login attempt to {url} failed with status: {status}")]
    Login { url: String, status: http::StatusCode },
    #[error("certificates for {host}: {reason}")]
    Certificates { host: String, reason: String },
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    #[error("toomanyrequests: {0}")]
    TooManyRequests(String),
    #[error("received unexpected HTTP status from {url}: {status}{detail}")]
    Status { url: String, status: http::StatusCode, detail: String },
    #[error("invalid answer from {url}: {reason}")]
    Answer { url: String, reason: String },
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(oci::Platform),
    #[error("image has no runnable content: {0}")]
    NotAnImage(&'static str),
    #[error("indexes are nested more than {0} deep")]
    TooDeep(usize),
    #[error(transparent)]
    Document(#[from] oci::DocumentError),
    #[error("An image does not exist locally with the tag: {0}")]
    NoTag(String),
    #[error("cannot push a digest reference")]
    PushDigest,
    #[error("invalid image archive: {0}")]
    Archive(String),
    #[error("a worker ended early: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    /// Whether the image (or the right to see it) is not there: HTTP 404 in Docker's API.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::ManifestUnknown(_) | Self::Denied(..) | Self::NoPlatform(_) | Self::NoTag(_) => true,
            Self::Content(error) => error.is_not_found(),
            _ => false,
        }
    }

    /// Whether nobody is there: asking again at once does not help.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Unreachable { reason, .. } if reason.starts_with("dial tcp") || reason.starts_with("tls:"))
    }

    /// Whether trying again may help (the network, a busy registry).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooManyRequests(_) => true,
            Self::Status { status, .. } => status.is_server_error(),
            _ => false,
        }
    }
}
