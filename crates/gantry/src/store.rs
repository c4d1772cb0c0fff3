//! The cluster's store below a root, with the keys that encrypt its secrets on disk. Opened by the daemon and by `gantry store`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::{Options, Result, Sealer, Store};

/// What is encrypted on disk: Secrets, as Kubernetes' documentation begins with.
const SEALED: [&str; 1] = ["/registry/core/secrets/"];

pub(crate) fn directory(root: &Path) -> PathBuf {
    root.join("store")
}

/// The keys stand beside the other keys of the instance, not in the store's own directory or its snapshots.
pub(crate) fn keys(root: &Path) -> PathBuf {
    root.join("pki/encryption.keys")
}

pub(crate) fn open(root: &Path) -> Result<Store> {
    let sealer = Arc::new(Sealer::open(&keys(root), &SEALED)?);
    Store::open_with(directory(root), Options { sealer: Some(sealer), ..Options::default() })
}
