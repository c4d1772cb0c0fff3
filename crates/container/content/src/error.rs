//! What can go wrong in the store, with the path or the name that it went wrong for.
//!
//! The texts for images are Docker's: the API passes them on as they are.

use std::io;
use std::path::{Path, PathBuf};

use oci::{Digest, ImageId};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: damaged record: {source}", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("content {0} not found")]
    NoBlob(Digest),
    #[error("content digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("content size mismatch: expected {expected} bytes, got {actual}")]
    SizeMismatch { expected: u64, actual: u64 },
    #[error("content {0} is being fetched already")]
    Busy(Digest),
    #[error("No such image: {0}")]
    NoImage(String),
    #[error("ambiguous image ID prefix: {0} matches more than one image")]
    AmbiguousPrefix(String),
    #[error("invalid image configuration: {0}")]
    Config(serde_json::Error),
    #[error("image configuration names {diff_ids} layers, but {layers} were given")]
    LayerCount { diff_ids: usize, layers: usize },
    #[error("conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", .0.0.short())]
    ReferencedInRepositories(ImageId),
    #[error(transparent)]
    Reference(#[from] oci::ReferenceError),
    #[error("invalid record key: {0}")]
    Key(String),
}

impl Error {
    /// Whether the caller asked for something that is not there (HTTP 404).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoBlob(_) | Self::NoImage(_))
    }

    /// Whether the state of things forbids it (HTTP 409).
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::ReferencedInRepositories(_) | Self::AmbiguousPrefix(_) | Self::Busy(_))
    }
}

/// Adds the path and the attempt to an I/O error.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { what, path: path.to_owned(), source })
    }
}
