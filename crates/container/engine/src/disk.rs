//! Records on disk: whole or not at all.
//!
//! A record is written beside its place and renamed into it. `kill -9` therefore leaves the old or the new one.
//! Whether it also survives a power failure is the caller's choice, because a sync is on the user's clock.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// Whether a write waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Survives a power failure once acknowledged.
    Synced,
    /// Survives the end of this process.
    Cached,
}

/// Makes a directory (and its parents) that only root may enter.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::file("create", path, e))
}

/// Writes `value` as JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::file("encode", path, e))?;
    write(path, &bytes, 0o600, durability)
}

/// Writes a whole file.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)
        .map_err(|e| Error::file("create", &beside, e))?;
    file.write_all(bytes).map_err(|e| Error::file("write", &beside, e))?;
    if durability == Durability::Synced {
        file.sync_data().map_err(|e| Error::file("sync", &beside, e))?;
    }
    fs::rename(&beside, path).map_err(|e| Error::file("rename to", path, e))
}

/// Reads a record; `None` when it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::file("decode", path, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file("read", path, e)),
    }
}
/// Removes a directory whose monitor may be writing its last file into it at this moment. What is not there is removed.
pub(crate) fn remove_dir(path: &Path) -> std::io::Result<()> {
    let mut attempts = 0;
    loop {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty && attempts < 100 => {
                attempts += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}
