//! Private files: written beside their place with mode 0600, synced, then renamed over it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::PkiError;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { action, path, source }
}

pub(super) fn ensure_private_directory(path: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("creating directory", path))
}

pub(super) fn read_optional(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("reading", path)(source)),
    }
}

pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let beside = path.with_extension("new");
    // A leftover of an interrupted write may have other permissions: start from nothing.
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(failed("removing", &beside)(source)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("creating", &beside))?;
    file.write_all(text.as_bytes()).map_err(failed("writing", &beside))?;
    file.sync_all().map_err(failed("syncing", &beside))?;
    fs::rename(&beside, path).map_err(failed("renaming into place", path))
}
