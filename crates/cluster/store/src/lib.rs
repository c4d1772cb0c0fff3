//! Revisioned key-value store with watch and etcd semantics; embedded backend.
mod types;
pub use types::*;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A handle; clones share one store.
#[derive(Clone)]
pub struct Store {}

#[derive(Clone, Debug)]
pub struct Options {
    /// History is kept for at least this many revisions.
    pub retain_revisions: u64,
}

impl Store {
    pub fn open(_path: impl AsRef<Path>) -> Result<Store> { todo!() }
    pub fn revision(&self) -> u64 { todo!() }
    pub fn compacted_revision(&self) -> u64 { todo!() }
    pub async fn txn(&self, _txn: Txn) -> Result<TxnOutcome> { todo!() }
    pub fn get(&self, _key: &[u8]) -> Option<KeyValue> { todo!() }
    pub fn get_at(&self, _key: &[u8], _revision: u64) -> Result<Option<KeyValue>, ReadError> { todo!() }
    /// `limit` 0 = no limit; `at` None = now.
    pub fn range(&self, _prefix: &[u8], _start_after: Option<&[u8]>, _limit: usize, _at: Option<u64>) -> Result<Range, ReadError> { todo!() }
    /// Number of keys now below `prefix` and after `start_after`.
    pub fn count(&self, _prefix: &[u8], _start_after: Option<&[u8]>) -> usize { todo!() }
    /// Events with a revision greater than `after` (None: from now on).
    pub fn watch(&self, _prefix: impl Into<Bytes>, _after: Option<u64>) -> Result<Watch, Compacted> { todo!() }
    pub async fn compact(&self, _revision: u64) -> Result<()> { todo!() }
    /// Bytes on disk.
    pub fn size(&self) -> u64 { todo!() }
    pub async fn snapshot(&self, _to: impl AsRef<Path>) -> Result<u64> { todo!() }
    pub fn restore(_snapshot: impl AsRef<Path>, _into: impl AsRef<Path>) -> Result<()> { todo!() }
}

/// An ordered stream of the changes below one prefix. Cancel-safe.
pub struct Watch {}

impl Watch {
    pub async fn next(&mut self) -> Result<Arc<Event>, WatchError> { todo!() }
    /// Everything up to this revision has been handed out (for bookmarks).
    pub fn progress(&self) -> u64 { todo!() }
}
