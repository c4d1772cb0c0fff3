//! The words of the store: keys, values, transactions, events and errors.
//!
//! Every part that reads or writes cluster state speaks these types; the API server is the main caller.
//! Invariant: a `KeyValue` is immutable once published, so its bytes may be shared by any number of readers.
//! Nothing here knows about Kubernetes.

use bytes::Bytes;
use std::path::PathBuf;

/// Longest key that is accepted, in bytes.
pub const MAX_KEY_BYTES: usize = 4096;
/// Largest value that is accepted, in bytes (the API server's own limit on a request body is 3 MiB).
pub const MAX_VALUE_BYTES: usize = 8 << 20;
/// Most operations in one transaction.
pub const MAX_OPS: usize = 1024;

/// One key at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// The revision at which the key came into being (since its last deletion).
    pub create_revision: u64,
    /// The revision of the transaction that wrote this value.
    pub mod_revision: u64,
}

/// A guard: the transaction is applied only when `key` was last written at `mod_revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: Bytes,
    /// 0 means: the key must be absent.
    pub mod_revision: u64,
}

/// Makes a value that embeds the revision at which it is written.
pub type Encode = Box<dyn FnOnce(u64) -> Bytes + Send>;

/// One write. A transaction names no key twice.
pub enum Op {
    Put {
        key: Bytes,
        value: Bytes,
    },
    /// `encode` runs on the log writer's thread with the revision that the transaction got; it must be quick.
    PutWith {
        key: Bytes,
        encode: Encode,
    },
    /// Deleting an absent key is no error and makes no event.
    Delete {
        key: Bytes,
    },
}

impl Op {
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::PutWith { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// All compares hold → all ops are applied, at one revision. Otherwise nothing is.
#[derive(Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub ops: Vec<Op>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// On disk and visible. `previous` holds, op by op, what stood there before.
    Committed { revision: u64, previous: Vec<Option<KeyValue>> },
    /// A guard failed. `current` holds, compare by compare, what stands there.
    Conflict { current: Vec<Option<KeyValue>> },
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub items: Vec<KeyValue>,
    /// The revision that the page is a picture of; pass it as `at` to continue consistently.
    pub revision: u64,
    /// More keys follow the last one of `items`.
    pub more: bool,
}

/// One change of one key. Changes of one transaction share a revision and come in op order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: u64,
    pub key: Bytes,
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put { value: KeyValue, prev: Option<KeyValue> },
    Delete { prev: KeyValue },
}

/// The revision that was asked for is older than the history that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} has been compacted; the oldest that can be read is {oldest}")]
pub struct Compacted {
    pub requested: u64,
    pub oldest: u64,
}

/// Why a read at a revision failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Compacted(#[from] Compacted),
    #[error("revision {requested} is in the future; the store is at {current}")]
    Future { requested: u64, current: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a watch ended. Both mean: list again, then watch from the list's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The watcher was so slow that the history it still needed was compacted.
    #[error("the watcher fell behind: {0}")]
    Lagged(#[from] Compacted),
    #[error("the store was closed")]
    Closed,
    #[error("the store's history could not be read")]
    Unreadable,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store {path}: cannot {action}: {source}")]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("store {path} is in use by another process")]
    Locked { path: PathBuf },
    /// Acknowledged data is damaged. Never repaired by guessing: restore a snapshot.
    #[error("store file {path} is damaged at byte {offset}: {reason}")]
    Corrupt { path: PathBuf, offset: u64, reason: &'static str },
    #[error("key file {path}: {reason}")]
    Keys { path: PathBuf, reason: &'static str },
    #[error("the value cannot be encrypted")]
    Seal,
    #[error("the key has {size} bytes; at most {MAX_KEY_BYTES} are allowed, and at least one")]
    KeySize { size: usize },
    #[error("the value has {size} bytes; at most {MAX_VALUE_BYTES} are allowed")]
    ValueSize { size: usize },
    #[error("the transaction has {count} operations; at most {MAX_OPS} are allowed, and at least one")]
    OpCount { count: usize },
    #[error("the transaction writes one key twice")]
    DuplicateKey,
    #[error("the value's encoder failed")]
    Encoder,
    /// An earlier write could not be made durable; nothing more is accepted until a restart.
    #[error("the store stopped accepting writes: {reason}")]
    Failed { reason: String },
    #[error("the store is closed")]
    Closed,
}
