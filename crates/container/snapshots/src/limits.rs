//! How much an archive may make us do, and the reader that stops it there.

use std::io::{self, Read};

use oci::{Digest, DigestHasher};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Limits on one archive. The defaults let every image in use pass and stop bombs before they fill a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes after decompression, holes of sparse files counted.
    pub max_bytes: u64,
    /// Decompressed bytes for each compressed one, looked at only beyond `ratio_grace` bytes.
    pub max_ratio: u64,
    pub ratio_grace: u64,
    pub max_entries: u64,
    /// Extended headers (PAX, GNU long names) of one entry.
    pub max_header_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 30,
            max_ratio: 1100,
            ratio_grace: 1 << 30,
            max_entries: 2_000_000,
            max_header_bytes: 1 << 20,
        }
    }
}

/// Reads the decompressed stream: hashes it (unless its digest is known), counts it, and ends with an error where a limit is passed.
pub(crate) struct Metered<R> {
    inner: R,
    hasher: DigestHasher,
    known: Option<Digest>,
    read: u64,
    cap: u64,
}

impl<R: Read> Metered<R> {
    /// `known`: the digest of the stream as it is read, where the content store has verified it already.
    pub(crate) fn new(inner: R, limits: &Limits, compressed_size: u64, known: Option<Digest>) -> Self {
        let by_ratio = limits.ratio_grace.max(compressed_size.saturating_mul(limits.max_ratio));
        Self { inner, hasher: DigestHasher::default(), known, read: 0, cap: limits.max_bytes.min(by_ratio) }
    }

    /// Reads to the end (what follows the archive's end mark is part of the diff ID) and returns the digest.
    pub(crate) fn finish(mut self) -> Result<Digest> {
        if let Some(known) = self.known {
            return Ok(known);
        }
        io::copy(&mut self, &mut io::sink()).map_err(read_error)?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if self.known.is_none() {
            self.hasher.update(&buffer[..n]);
        }
        self.read += n as u64;
        if self.read > self.cap {
            return Err(io::Error::other(OverLimit(self.cap)));
        }
        Ok(n)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("archive has more than the limit of {0} bytes")]
struct OverLimit(u64);

/// Turns a limit that surfaced as an I/O error back into what it is.
pub(crate) fn read_error(error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<OverLimit>()) {
        Some(OverLimit(limit)) => Error::Limit { what: "bytes after decompression", limit: *limit },
        None => Error::Read(error),
    }
}
