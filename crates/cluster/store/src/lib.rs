//! Revisioned key-value store with watch and etcd's promises; the embedded backend.
//!
//! Called by the API server (all cluster state) and by the binary (snapshot, restore).
//!
//! The latest value of every key stands in memory; all that was ever acknowledged (and not yet compacted) stands in
//! an append-only log on disk. Invariants:
//! - one revision a transaction, without gaps; a transaction is applied whole or not at all;
//! - what `txn` acknowledged is on disk (many writers share one `fdatasync`), and no reader or watcher ever sees a
//!   write that is not;
//! - a watcher gets every change below its prefix once and in order, or an error that says: list again.
//!
//! Why a log of our own and not an LSM tree: history is written in order, read rarely and dropped from the front, and
//! the present is in memory, so a tree's sorting, block cache and background threads would buy nothing. An idle store
//! here is one thread parked on a channel.
//!
//! What it deliberately does not do: no leases (expiry is the API server's), no replication (etcd is for that).

mod compaction;
mod crc;
mod frame;
mod index;
mod log;
mod recover;
mod seal;
mod types;
mod watch;
mod writer;

pub use seal::Sealer;
pub use types::*;
pub use watch::Watch;

use bytes::Bytes;
use index::Index;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Requests that may wait for the log before `txn` itself waits.
const WRITE_QUEUE: usize = 1024;

/// How much history is kept, and in what pieces.
#[derive(Clone, Debug)]
pub struct Options {
    /// Automatic compaction never drops the newest this many revisions.
    pub retain_revisions: u64,
    /// A log file is closed at this size; that is also when compaction is considered.
    pub segment_bytes: u64,
    /// Recent events that are kept in memory for watchers; older ones are read from disk.
    pub recent_events: usize,
    /// Encrypts what it covers on disk.
    pub sealer: Option<Arc<Sealer>>,
}

impl Default for Options {
    fn default() -> Self {
        Options { retain_revisions: 50_000, segment_bytes: 16 << 20, recent_events: 2048, sealer: None }
    }
}

/// A handle; clones share one store. The log is closed when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    writes: mpsc::Sender<writer::Request>,
    _closer: Arc<Closer>,
}

/// What readers, watchers, the writer and compaction have in common.
struct Shared {
    dir: PathBuf,
    options: Options,
    index: RwLock<Index>,
    hub: watch::Hub,
    /// Closed log files and the current snapshot, oldest first.
    files: Mutex<Vec<Arc<log::LogFile>>>,
    /// A write could not be made durable.
    failed: std::sync::atomic::AtomicBool,
    /// One compaction at a time.
    compacting: Mutex<()>,
    /// Held for the life of the store: a second process is refused.
    _lock: std::fs::File,
}

/// Joins the writer when the last handle goes, so that the directory may be opened again at once.
struct Closer {
    stop: mpsc::Sender<writer::Request>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    shared: Arc<Shared>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.shared.hub.close();
        // A full queue drains by itself; the writer never waits for anything but the disk.
        let mut stop = Some(writer::Request::Stop);
        while let Some(request) = stop.take() {
            match self.stop.try_send(request) {
                Err(mpsc::error::TrySendError::Full(back)) => {
                    stop = Some(back);
                    std::thread::yield_now();
                }
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        let thread = self.thread.lock().ok().and_then(|mut t| t.take());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Opens (or makes) the store in directory `path`, replaying its log.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Self::open_with(path, Options::default())
    }

    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Store> {
        let recovered = recover::recover(path.as_ref(), options.sealer.as_ref())?;
        let shared = Arc::new(Shared {
            dir: path.as_ref().to_path_buf(),
            hub: watch::Hub::new(options.recent_events, recovered.index.revision()),
            options,
            index: RwLock::new(recovered.index),
            files: Mutex::new(recovered.files),
            failed: std::sync::atomic::AtomicBool::new(false),
            compacting: Mutex::new(()),
            _lock: recovered.lock,
        });
        let (writes, requests) = mpsc::channel(WRITE_QUEUE);
        let thread = writer::spawn(shared.clone(), recovered.active, requests)?;
        let closer = Closer { stop: writes.clone(), thread: Mutex::new(Some(thread)), shared: shared.clone() };
        Ok(Store { shared, writes, _closer: Arc::new(closer) })
    }

    /// The newest revision. An empty store is at 0; the first transaction gets 1.
    pub fn revision(&self) -> u64 {
        self.shared.index().revision()
    }

    /// Reads and watches below this revision fail with [`Compacted`].
    pub fn compacted_revision(&self) -> u64 {
        self.shared.index().compacted()
    }

    /// Applies `txn` if its guards hold. On return a commit is durable and visible to every reader.
    pub async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        writer::check(&txn)?;
        let (reply, answer) = oneshot::channel();
        self.writes.send(writer::Request::Txn { txn, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.shared.index().get(key).cloned()
    }

    /// The key as it was at `revision`.
    pub fn get_at(&self, key: &[u8], revision: u64) -> Result<Option<KeyValue>, ReadError> {
        let found = self.shared.index().at(key, revision)?;
        Ok(found.map(index::Found::load).transpose()?)
    }

    /// Keys with `prefix` in order, after `start_after`; `limit` 0 means all; `at` None means now.
    pub fn range(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
        at: Option<u64>,
    ) -> Result<Range, ReadError> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let page = self.shared.index().range(prefix, start_after, limit, at)?;
        let items = page.found.into_iter().map(index::Found::load).collect::<Result<_>>()?;
        Ok(Range { items, revision: page.revision, more: page.more })
    }

    /// How many keys stand below `prefix` now, after `start_after`.
    pub fn count(&self, prefix: &[u8], start_after: Option<&[u8]>) -> usize {
        self.shared.index().count(prefix, start_after)
    }

    /// Changes below `prefix` with a revision greater than `after` (None: from now on).
    pub fn watch(&self, prefix: impl Into<Bytes>, after: Option<u64>) -> Result<Watch, Compacted> {
        Watch::start(self.shared.clone(), prefix.into(), after)
    }

    /// Drops the history before `revision`, while serving.
    pub async fn compact(&self, revision: u64) -> Result<()> {
        let shared = self.shared.clone();
        run_blocking(move || compaction::compact(&shared, revision)).await
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        log::directory_size(&self.shared.dir)
    }

    /// Writes everything as of now to the new file `to`; says the revision it is a picture of.
    pub async fn snapshot(&self, to: impl AsRef<Path>) -> Result<u64> {
        let (shared, to) = (self.shared.clone(), to.as_ref().to_path_buf());
        run_blocking(move || compaction::snapshot(&shared, &to)).await
    }

    /// Makes the directory `into` (absent or empty) a store with the content of a snapshot file. `bump` is added to its
    /// revision: who watched the store that was replaced has seen revisions that this one must not use for other things.
    pub fn restore(snapshot: impl AsRef<Path>, into: impl AsRef<Path>, bump: u64) -> Result<u64> {
        recover::restore(snapshot.as_ref(), into.as_ref(), bump)
    }

    /// Whether writes are accepted: false after one could not be made durable.
    pub fn accepts_writes(&self) -> bool {
        !self.shared.failed.load(std::sync::atomic::Ordering::Acquire)
    }
}

impl Shared {
    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        // No code panics while it holds the lock for writing half-way, so a poisoned lock still guards whole data.
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Vec<Arc<log::LogFile>>> {
        self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?
}
