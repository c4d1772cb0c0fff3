//! Everything that can stop a build, in the words that its user reads.

use std::path::PathBuf;

/// Why a build stopped. The texts are shown to users as they stand.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile does not parse. `line` is 1-based.
    #[error("dockerfile parse error on line {line}: {message} ({file}:{line}: {text})")]
    Parse { file: String, line: usize, text: String, message: String },
    #[error("the Dockerfile ({file}) cannot be empty")]
    Empty { file: String },
    #[error("Cannot locate specified Dockerfile: {file}")]
    NoDockerfile { file: String },
    #[error("failed to reach build target {target} in Dockerfile")]
    NoTarget { target: String },
    /// A step failed for a reason of its own.
    #[error("{message}")]
    Step { message: String },
    /// A RUN step's process ended with another code than 0.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Exit { command: String, code: i32 },
    #[error("{instruction} failed: {source_path}: file not found in build context or excluded by .dockerignore")]
    SourceMissing { instruction: &'static str, source_path: String },
    #[error("invalid reference format: {reference}")]
    Reference { reference: String },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    /// The image store or the layer store refused.
    #[error("{0}")]
    Storage(String),
    #[error("build cancelled")]
    Cancelled,
}

impl From<content::Error> for BuildError {
    fn from(error: content::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<snapshots::Error> for BuildError {
    fn from(error: snapshots::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl BuildError {
    pub fn step(message: impl Into<String>) -> Self {
        Self::Step { message: message.into() }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// The words that BuildKit's clients know for it.
    pub fn solver_text(&self) -> String {
        match self {
            Self::Exit { command, code } => {
                format!("process {command:?} did not complete successfully: exit code: {code}")
            }
            Self::SourceMissing { source_path, .. } => {
                format!("failed to compute cache key: \"/{}\": not found", source_path.trim_start_matches('/'))
            }
            Self::NoTarget { target } => format!("target stage \"{target}\" could not be found"),
            other => other.to_string(),
        }
    }

    /// Whether the request itself was wrong (HTTP 400), as opposed to something that failed while building.
    pub fn is_bad_request(&self) -> bool {
        match self {
            Self::Parse { .. }
            | Self::Empty { .. }
            | Self::NoDockerfile { .. }
            | Self::NoTarget { .. }
            | Self::Reference { .. } => true,
            Self::Step { .. }
            | Self::Exit { .. }
            | Self::SourceMissing { .. }
            | Self::Io { .. }
            | Self::Storage(_)
            | Self::Cancelled => false,
        }
    }
}
