//! Layers to mountable root filesystems (overlayfs).
#![expect(clippy::todo, reason = "signatures first; filled in within the hour")]
use oci::{ChainId, Descriptor, Digest};
use std::path::{Path, PathBuf};
/// What to hand to the runtime: an overlay mount, lowers top first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub lowers: Vec<PathBuf>,
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: PathBuf,
    pub kind: ChangeKind,
}
#[derive(Clone, Debug)]
pub struct Committed {
    pub diff_id: Digest,
    pub chain_id: ChainId,
    pub blob: Descriptor,
    pub size: u64,
}
#[derive(Clone)]
pub struct Snapshots(content::Store);
#[derive(Debug, thiserror::Error)]
#[error("todo")]
pub struct Error;
pub type Result<T, E = Error> = std::result::Result<T, E>;
/// Unmounts when dropped.
pub struct MountedDir {
    path: PathBuf,
}
impl MountedDir {
    pub fn path(&self) -> &Path {
        &self.path
    }
}
/// All calls block; use spawn_blocking. Keys: `[A-Za-z0-9_.-]{1,128}`.
impl Snapshots {
    pub fn open(_root: &Path, content: content::Store) -> Result<Self> {
        Ok(Self(content))
    }
    /// Unpacks what is not unpacked yet, in parallel; the chain ID of the whole image (None: no layers).
    pub fn ensure_unpacked(&self, _image: &content::Image) -> Result<Option<ChainId>> {
        todo!()
    }
    /// A writable snapshot on top of a chain (None: empty). Idempotent for the same key and parent.
    pub fn prepare(&self, _key: &str, _parent: Option<&ChainId>) -> Result<Mount> {
        todo!()
    }
    /// The mount of a prepared key again (after a restart).
    pub fn get(&self, _key: &str) -> Result<Mount> {
        todo!()
    }
    /// Turns the key's upper into a layer (+ uncompressed tar blob in content). The key is gone after.
    pub fn commit(&self, _key: &str) -> Result<Committed> {
        todo!()
    }
    /// The same, leaving the key in use (docker commit of a running container).
    pub fn capture(&self, _key: &str) -> Result<Committed> {
        todo!()
    }
    pub fn diff(&self, _key: &str, _out: &mut dyn std::io::Write) -> Result<()> {
        todo!()
    }
    pub fn changes(&self, _key: &str) -> Result<Vec<Change>> {
        todo!()
    }
    /// Bytes in the upper.
    pub fn usage(&self, _key: &str) -> Result<u64> {
        todo!()
    }
    pub fn remove(&self, _key: &str) -> Result<()> {
        todo!()
    }
    /// Host-side mount of a key (not while a container runs on it).
    pub fn mount(&self, _key: &str) -> Result<MountedDir> {
        todo!()
    }
    /// Read-only mount of a chain.
    pub fn view(&self, _chain: Option<&ChainId>) -> Result<MountedDir> {
        todo!()
    }
    /// Removes layers that no image, record, lease or key needs.
    pub fn gc(&self) -> Result<Vec<ChainId>> {
        todo!()
    }
}
