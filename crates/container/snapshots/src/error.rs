//! What can go wrong between a layer and a root filesystem, with the path that it went wrong for.

use std::io;
use std::path::{Path, PathBuf};

use oci::{ChainId, Digest};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Content(#[from] content::Error),
    #[error("layer {layer}: {source}")]
    Layer { layer: Digest, source: Box<Error> },
    #[error("read archive: {0}")]
    Read(io::Error),
    #[error("invalid tar archive: {0}")]
    Archive(&'static str),
    #[error("archive entry {path:?} leaves the target directory")]
    Breakout { path: String },
    #[error("archive has more than the limit of {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    #[error("layer's uncompressed content is {actual}, not {expected} as the image says")]
    DiffId { expected: Digest, actual: Digest },
    /// What an unpacker in a process of its own said.
    #[error("{0}")]
    Refused(String),
    #[error("the unpacker of {} ended early: {reason}", target.display())]
    Unpacker { target: PathBuf, reason: String },
    #[error("layer {0} is not unpacked")]
    NoLayer(ChainId),
    #[error("no such snapshot: {0}")]
    NoSnapshot(String),
    #[error("snapshot {0} exists already on another parent")]
    Exists(String),
    #[error("invalid snapshot key: {0:?}")]
    Key(String),
    #[error("image has {0} layers, more than overlayfs can stack")]
    TooManyLayers(usize),
    #[error("{}: damaged record: {source}", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
}

/// Adds the path and the attempt to an I/O error, of `std` or of `rustix`.
pub(crate) trait At<T> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, what: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io { what, path: path.as_ref().to_owned(), source: source.into() })
    }
}
