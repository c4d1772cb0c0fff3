//! Watches: an ordered, resumable stream of the changes below one prefix.
//!
//! The writer publishes each group of changes once, into one ring that all watchers share; a watcher is a cursor into
//! it and owns no queue, so slow watchers cost no memory. One that falls behind the ring goes on from the log on disk;
//! one that falls behind compaction gets `Lagged`.
//! Invariant: a watcher's cursor only grows, and every change below its prefix after the cursor is still to be given.

use crate::index::{Found, PastChange};
use crate::types::{Compacted, Event, EventKind, WatchError};
use crate::{Shared, StoreError};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

/// Values that the ring may hold on to, in bytes.
const RING_BYTES: usize = 8 << 20;
/// Changes that one look into the ring or the history hands out at most.
const BATCH: usize = 128;
/// Changes of the history that one look passes at most, while it holds the index's lock.
const SCAN: usize = 2048;

/// The ring, and who waits for what.
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    topics: Mutex<HashMap<Bytes, Weak<Topic>>>,
    closed: AtomicBool,
}

struct Ring {
    events: VecDeque<Arc<Event>>,
    capacity: usize,
    bytes: usize,
    /// Every change after this revision is in `events`.
    floor: u64,
    newest: u64,
}

/// Watchers of the same prefix wake together.
struct Topic {
    prefix: Bytes,
    notify: Notify,
}

impl Hub {
    pub(crate) fn new(capacity: usize, revision: u64) -> Self {
        let ring = Ring { events: VecDeque::new(), capacity, bytes: 0, floor: revision, newest: revision };
        Hub { ring: Mutex::new(ring), topics: Mutex::default(), closed: AtomicBool::new(false) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Bytes, Weak<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn publish(&self, events: Vec<Arc<Event>>) {
        let topics: Vec<Arc<Topic>> = self.topics().values().filter_map(Weak::upgrade).collect();
        let woken: Vec<Arc<Topic>> =
            topics.into_iter().filter(|t| events.iter().any(|e| e.key.starts_with(&t.prefix))).collect();
        self.ring().push(events);
        for topic in woken {
            topic.notify.notify_waiters();
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for topic in self.topics().values().filter_map(Weak::upgrade) {
            topic.notify.notify_waiters();
        }
    }

    fn topic(&self, prefix: &Bytes) -> Arc<Topic> {
        let mut topics = self.topics();
        if let Some(topic) = topics.get(prefix).and_then(Weak::upgrade) {
            return topic;
        }
        topics.retain(|_, topic| topic.strong_count() > 0);
        let topic = Arc::new(Topic { prefix: prefix.clone(), notify: Notify::new() });
        topics.insert(prefix.clone(), Arc::downgrade(&topic));
        topic
    }
}

impl Ring {
    fn push(&mut self, events: Vec<Arc<Event>>) {
        for event in events {
            self.newest = self.newest.max(event.revision);
            self.bytes += event_bytes(&event);
            self.events.push_back(event);
        }
        while self.events.len() > self.capacity || self.bytes > RING_BYTES {
            let Some(dropped) = self.events.pop_front() else {
                break;
            };
            self.bytes -= event_bytes(&dropped);
            self.floor = dropped.revision;
        }
    }

    /// Fills `out` with changes after `cursor`; the answer is how far that is complete, or None: too old for the ring.
    fn since(&self, cursor: u64, prefix: &[u8], out: &mut VecDeque<Arc<Event>>) -> Option<u64> {
        if cursor < self.floor {
            return None;
        }
        let start = self.events.partition_point(|e| e.revision <= cursor);
        for (seen, event) in self.events.range(start..).enumerate() {
            if out.len() >= BATCH && self.events[start + seen - 1].revision != event.revision {
                return Some(event.revision - 1);
            }
            if event.key.starts_with(prefix) {
                out.push_back(event.clone());
            }
        }
        Some(self.newest.max(cursor))
    }
}

fn event_bytes(event: &Event) -> usize {
    let values = match &event.kind {
        EventKind::Put { value, prev } => value.value.len() + prev.as_ref().map_or(0, |p| p.value.len()),
        EventKind::Delete { prev } => prev.value.len(),
    };
    values + event.key.len() + size_of::<Event>()
}

/// An ordered stream of the changes below one prefix.
pub struct Watch {
    shared: Arc<Shared>,
    topic: Arc<Topic>,
    cursor: u64,
    buffer: VecDeque<Arc<Event>>,
}

impl Watch {
    pub(crate) fn start(shared: Arc<Shared>, prefix: Bytes, after: Option<u64>) -> Result<Self, Compacted> {
        let topic = shared.hub.topic(&prefix);
        let cursor = {
            let index = shared.index();
            let after = after.unwrap_or_else(|| index.revision());
            index.check_history(after)?;
            after
        };
        Ok(Watch { shared, topic, cursor, buffer: VecDeque::new() })
    }

    /// The next change, as soon as there is one. Cancel-safe.
    pub async fn next(&mut self) -> Result<Arc<Event>, WatchError> {
        let topic = self.topic.clone();
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Ok(event);
            }
            if self.shared.hub.closed.load(Ordering::SeqCst) {
                return Err(WatchError::Closed);
            }
            // Registered before the look, so that a change between the look and the wait still wakes us.
            let mut notified = std::pin::pin!(topic.notify.notified());
            notified.as_mut().enable();
            let complete = self.fill()?;
            if self.buffer.is_empty() && complete && !self.shared.hub.closed.load(Ordering::SeqCst) {
                notified.await;
            }
        }
    }

    /// A change that is there already; never waits.
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, WatchError> {
        while self.buffer.is_empty() && !self.fill()? {}
        Ok(self.buffer.pop_front())
    }

    /// Every change below the prefix up to this revision has been handed out: good for a bookmark.
    pub fn progress(&mut self) -> Result<u64, WatchError> {
        while self.buffer.is_empty() && !self.fill()? {}
        Ok(self.buffer.front().map_or(self.cursor, |event| event.revision - 1))
    }

    /// Moves the cursor on. True: nothing more is there at this moment.
    fn fill(&mut self) -> Result<bool, WatchError> {
        let hub = &self.shared.hub;
        let ring = hub.ring();
        if let Some(through) = ring.since(self.cursor, &self.topic.prefix, &mut self.buffer) {
            let complete = through >= ring.newest;
            drop(ring);
            self.cursor = through;
            return Ok(complete);
        }
        drop(ring);
        let (past, through) = self.shared.index().history(self.cursor, &self.topic.prefix, SCAN)?;
        for change in past {
            self.buffer.push_back(Arc::new(load(change).map_err(|error| {
                tracing::error!(%error, "a watch could not read the store's history");
                WatchError::Unreadable
            })?));
        }
        self.cursor = through;
        Ok(false)
    }
}

fn load(change: PastChange) -> Result<Event, StoreError> {
    let PastChange { revision, key, new, prev } = change;
    let prev = prev.map(Found::load).transpose()?;
    let kind = match (new, prev) {
        (Some(new), prev) => EventKind::Put { value: new.load()?, prev },
        (None, Some(prev)) => EventKind::Delete { prev },
        // A deletion is only ever written for a key that was there.
        (None, None) => return Err(StoreError::Closed),
    };
    Ok(Event { revision, key, kind })
}
