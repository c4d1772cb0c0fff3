//! What can go wrong in the agent.
//!
//! Errors become events, waiting reasons or gateway answers at the edges; none is logged and returned.

use std::path::PathBuf;

/// A failure of the node agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The container runtime refused.
    #[error("{0}")]
    Cri(#[from] cri::CriError),
    /// The API server refused.
    #[error("{0}")]
    Api(#[from] kube_client::ClientError),
    /// A file operation failed.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The pod asks for something that is not there or makes no sense.
    #[error("{0}")]
    Config(String),
}

/// The crate's result.
pub type Result<T, E = AgentError> = std::result::Result<T, E>;

/// Adds the path to a failed file operation.
pub(crate) trait AtPath<T> {
    fn at(self, doing: &'static str, path: &std::path::Path) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> AtPath<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &std::path::Path) -> Result<T> {
        self.map_err(|source| AgentError::File { doing, path: path.to_owned(), source: source.into() })
    }
}
