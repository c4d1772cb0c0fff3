//! The log writer: one thread that turns waiting transactions into one durable frame at a time.
//!
//! `Store::txn` sends here. Whatever has queued up while the disk was busy goes into the next frame together, so the
//! cost of a sync is shared by all that wait (group commit).
//! Invariants: transactions are decided in the order they arrive, each on the outcome of those before it; nothing is
//! answered or made visible before its frame is durable; after a sync that failed nothing is written any more.

use crate::frame::FrameBuilder;
use crate::index::Change;
use crate::log::{Appender, Location};
use crate::types::{
    Compare, Event, EventKind, KeyValue, MAX_KEY_BYTES, MAX_OPS, MAX_VALUE_BYTES, Op, StoreError, Txn, TxnOutcome,
};
use crate::{Result, Shared, compaction};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// A frame is closed when it has grown to this size.
const FRAME_BYTES: usize = 4 << 20;
/// …or holds this many transactions.
const FRAME_TXNS: usize = 1024;

type Reply = oneshot::Sender<Result<TxnOutcome>>;

pub(crate) enum Request {
    Txn { txn: Txn, reply: Reply },
    Stop,
}

/// What can be refused without looking at the data.
pub(crate) fn check(txn: &Txn) -> Result<()> {
    let count = txn.ops.len();
    if count == 0 || count > MAX_OPS || txn.compare.len() > MAX_OPS {
        return Err(StoreError::OpCount { count });
    }
    for op in &txn.ops {
        let size = op.key().len();
        if size == 0 || size > MAX_KEY_BYTES {
            return Err(StoreError::KeySize { size });
        }
        if let Op::Put { value, .. } = op {
            check_value(value)?;
        }
    }
    let distinct: HashSet<&Bytes> = txn.ops.iter().map(Op::key).collect();
    if distinct.len() != count {
        return Err(StoreError::DuplicateKey);
    }
    Ok(())
}

fn check_value(value: &Bytes) -> Result<()> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(StoreError::ValueSize { size: value.len() });
    }
    Ok(())
}

pub(crate) fn spawn(
    shared: Arc<Shared>,
    active: Appender,
    requests: mpsc::Receiver<Request>,
) -> Result<std::thread::JoinHandle<()>> {
    let dir = shared.dir.clone();
    let builder = std::thread::Builder::new().name("store-log".into());
    let writer = Writer { shared, active, failed: None, frame: FrameBuilder::new() };
    builder.spawn(move || writer.run(requests)).map_err(crate::log::io_error(&dir, "start the log writer"))
}

struct Writer {
    shared: Arc<Shared>,
    active: Appender,
    failed: Option<String>,
    frame: FrameBuilder,
}

/// Transactions that share a frame, decided but not durable yet.
#[derive(Default)]
struct Batch {
    /// What keys will be once the batch is durable; transactions of one batch see each other through it.
    ahead: HashMap<Bytes, Option<KeyValue>>,
    changes: Vec<Pending>,
    answers: Vec<(Reply, Result<TxnOutcome>)>,
    revision: u64,
}

/// One write of a transaction, encoded.
struct Write {
    key: Bytes,
    value: Option<Bytes>,
    sealed: Option<Vec<u8>>,
}

struct Pending {
    key: Bytes,
    mod_revision: u64,
    new: Option<KeyValue>,
    prev: Option<KeyValue>,
    /// Where the value begins inside the frame, and its length there.
    offset: u64,
    len: u32,
    sealed: bool,
}

impl Writer {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut stop = false;
        while !stop {
            let mut batch = Batch { revision: self.shared.index().revision(), ..Batch::default() };
            let mut next = requests.blocking_recv();
            while let Some(request) = next {
                match request {
                    Request::Txn { txn, reply } => self.admit(&mut batch, txn, reply),
                    Request::Stop => {
                        stop = true;
                        break;
                    }
                }
                if self.frame.len() > FRAME_BYTES || batch.answers.len() >= FRAME_TXNS {
                    break;
                }
                next = requests.try_recv().ok();
            }
            stop |= batch.answers.is_empty();
            self.commit(batch);
        }
    }

    fn admit(&mut self, batch: &mut Batch, txn: Txn, reply: Reply) {
        let outcome = match &self.failed {
            Some(reason) => Err(StoreError::Failed { reason: reason.clone() }),
            None => self.decide(batch, txn),
        };
        batch.answers.push((reply, outcome));
    }

    fn decide(&mut self, batch: &mut Batch, txn: Txn) -> Result<TxnOutcome> {
        let current: Vec<Option<KeyValue>> = txn.compare.iter().map(|c| self.current(batch, &c.key)).collect();
        let holds = |(compare, now): (&Compare, &Option<KeyValue>)| {
            now.as_ref().map_or(0, |kv| kv.mod_revision) == compare.mod_revision
        };
        if !txn.compare.iter().zip(&current).all(holds) {
            return Ok(TxnOutcome::Conflict { current });
        }
        let revision = batch.revision + 1;
        let previous: Vec<_> = txn.ops.iter().map(|op| self.current(batch, op.key())).collect();
        // All encoders run before anything is recorded: one that fails leaves no half of its transaction behind.
        let mut writes = Vec::with_capacity(txn.ops.len());
        for op in txn.ops {
            let (key, value) = encode(op, revision)?;
            let sealed = self.seal(&key, value.as_ref())?;
            writes.push(Write { key, value, sealed });
        }
        for (write, prev) in writes.into_iter().zip(&previous) {
            self.record(batch, revision, write, prev.clone());
        }
        Ok(TxnOutcome::Committed { revision: batch.revision, previous })
    }

    fn current(&self, batch: &Batch, key: &Bytes) -> Option<KeyValue> {
        match batch.ahead.get(key) {
            Some(ahead) => ahead.clone(),
            None => self.shared.index().get(key).cloned(),
        }
    }

    /// What reaches the disk instead of the value, when that is to be encrypted.
    fn seal(&self, key: &Bytes, value: Option<&Bytes>) -> Result<Option<Vec<u8>>> {
        match (self.shared.options.sealer.as_ref().filter(|sealer| sealer.covers(key)), value) {
            (Some(sealer), Some(value)) => sealer.seal(key, value).map(Some).ok_or(StoreError::Seal),
            _ => Ok(None),
        }
    }

    fn record(&mut self, batch: &mut Batch, revision: u64, write: Write, prev: Option<KeyValue>) {
        let Write { key, value, sealed } = write;
        let (new, offset, len) = match value {
            Some(value) => {
                let create_revision = prev.as_ref().map_or(revision, |p| p.create_revision);
                let (offset, len) = match &sealed {
                    Some(sealed) => (self.frame.put_sealed(&key, create_revision, revision, sealed), sealed.len()),
                    None => (self.frame.put(&key, create_revision, revision, &value), value.len()),
                };
                let new = KeyValue { key: key.clone(), value, create_revision, mod_revision: revision };
                (Some(new), offset, len as u32)
            }
            None if prev.is_none() => return,
            None => {
                self.frame.delete(&key, revision);
                (None, 0, 0)
            }
        };
        batch.revision = revision;
        batch.ahead.insert(key.clone(), new.clone());
        batch.changes.push(Pending { key, mod_revision: revision, new, prev, offset, len, sealed: sealed.is_some() });
    }

    fn commit(&mut self, batch: Batch) {
        let written = if self.frame.is_empty() { Ok(()) } else { self.append() };
        match written {
            Ok(()) => {
                self.publish(batch.changes);
                for (reply, outcome) in batch.answers {
                    // The asker may have gone away; the write stands all the same.
                    let _ = reply.send(outcome);
                }
            }
            Err(error) => refuse(batch.answers, error),
        }
        self.frame.clear();
        if self.active.offset >= self.shared.options.segment_bytes {
            self.rotate();
        }
    }

    fn append(&mut self) -> Result<()> {
        self.active.append(&mut self.frame).map_err(|(error, unknown)| {
            tracing::error!(%error, unknown, "a write to the store's log failed");
            if unknown {
                self.failed = Some(error.to_string());
                self.shared.failed.store(true, std::sync::atomic::Ordering::Release);
            }
            error
        })
    }

    fn publish(&self, changes: Vec<Pending>) {
        if changes.is_empty() {
            return;
        }
        let frame_start = self.active.offset - self.frame.len() as u64;
        let mut events = Vec::with_capacity(changes.len());
        let mut index = self.shared.index_mut();
        for Pending { key, mod_revision, new, prev, offset, len, sealed } in changes {
            let put = new.clone().map(|kv| {
                let location = Location {
                    file: self.active.log.clone(),
                    offset: frame_start + offset,
                    len,
                    sealer: self.shared.options.sealer.clone().filter(|_| sealed),
                };
                (kv, location)
            });
            index.apply(Change { key: key.clone(), mod_revision, put });
            let kind = match (new, prev) {
                (Some(value), prev) => EventKind::Put { value, prev },
                (None, Some(prev)) => EventKind::Delete { prev },
                (None, None) => continue,
            };
            events.push(Arc::new(Event { revision: mod_revision, key, kind }));
        }
        drop(index);
        self.shared.hub.publish(events);
    }

    /// Begins a new file. When that fails the old one simply grows on.
    fn rotate(&mut self) {
        let base = self.shared.index().revision() + 1;
        match Appender::create(&self.shared.dir, base) {
            Ok(fresh) => {
                let full = std::mem::replace(&mut self.active, fresh);
                self.shared.files().push(full.log);
                compaction::start_if_due(&self.shared);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot begin a new log file; going on with the old one")
            }
        }
    }
}

fn encode(op: Op, revision: u64) -> Result<(Bytes, Option<Bytes>)> {
    match op {
        Op::Put { key, value } => Ok((key, Some(value))),
        Op::PutWith { key, encode } => {
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || encode(revision)));
            let value = made.map_err(|_| StoreError::Encoder)?;
            check_value(&value)?;
            Ok((key, Some(value)))
        }
        Op::Delete { key } => Ok((key, None)),
    }
}

/// Nothing of a frame that failed may count as done, not even the conflicts: they may rest on what was lost.
fn refuse(answers: Vec<(Reply, Result<TxnOutcome>)>, error: StoreError) {
    for (reply, outcome) in answers {
        let answer = match outcome {
            Err(own) => Err(own),
            Ok(_) => Err(copy(&error)),
        };
        let _ = reply.send(answer);
    }
}

fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Io { path, action, source } => {
            let source = match source.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(source.kind(), source.to_string()),
            };
            StoreError::Io { path: path.clone(), action, source }
        }
        other => StoreError::Failed { reason: other.to_string() },
    }
}
