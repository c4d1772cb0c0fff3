//! Who wants to hear of a cache's changes, and what each has not heard yet.
//!
//! Used by `informer` only. Invariant: a subscriber's backlog holds one entry a key at most; entries come out in the
//! order in which their keys first changed.

use crate::informer::ObjectKey;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// One change, with both sides. A relist is told as changes too.
#[derive(Clone, Debug)]
pub enum Change<K> {
    Applied { old: Option<Arc<K>>, new: Arc<K> },
    Deleted { last: Arc<K> },
}

impl<K> Change<K> {
    /// The object as it is, or as it was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Applied { new, .. } => new,
            Change::Deleted { last } => last,
        }
    }

    /// Both sides, whichever there are.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        let (a, b) = match self {
            Change::Applied { old, new } => (old.as_ref(), Some(new)),
            Change::Deleted { last } => (Some(last), None),
        };
        a.into_iter().chain(b)
    }
}

/// One key's sides: what was told last, and what is now.
type Sides<K> = (Option<Arc<K>>, Option<Arc<K>>);

pub(crate) struct Subscriber<K> {
    backlog: Mutex<Backlog<K>>,
    notify: Notify,
}

struct Backlog<K> {
    order: VecDeque<ObjectKey>,
    sides: HashMap<ObjectKey, Sides<K>>,
    closed: bool,
}

impl<K> Subscriber<K> {
    pub(crate) fn new() -> Arc<Self> {
        let backlog = Backlog { order: VecDeque::new(), sides: HashMap::new(), closed: false };
        Arc::new(Subscriber { backlog: Mutex::new(backlog), notify: Notify::new() })
    }

    fn backlog(&self) -> std::sync::MutexGuard<'_, Backlog<K>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, key: &ObjectKey, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        let mut backlog = self.backlog();
        if let Some(sides) = backlog.sides.get_mut(key) {
            sides.1 = new;
        } else {
            backlog.sides.insert(key.clone(), (old, new));
            backlog.order.push_back(key.clone());
        }
        drop(backlog);
        self.notify.notify_one();
    }

    fn pop(&self) -> Option<Option<Change<K>>> {
        let mut backlog = self.backlog();
        while let Some(key) = backlog.order.pop_front() {
            match backlog.sides.remove(&key) {
                Some((old, Some(new))) => return Some(Some(Change::Applied { old, new })),
                Some((Some(last), None)) => return Some(Some(Change::Deleted { last })),
                // Came and went unseen.
                Some((None, None)) | None => {}
            }
        }
        backlog.closed.then_some(None)
    }
}

pub(crate) struct Subscribers<K>(Vec<Weak<Subscriber<K>>>);

impl<K> Default for Subscribers<K> {
    fn default() -> Self {
        Subscribers(Vec::new())
    }
}

impl<K> Subscribers<K> {
    pub(crate) fn add(&mut self, subscriber: &Arc<Subscriber<K>>) {
        self.0.retain(|s| s.strong_count() > 0);
        self.0.push(Arc::downgrade(subscriber));
    }

    pub(crate) fn push(&self, key: &ObjectKey, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        for subscriber in self.0.iter().filter_map(Weak::upgrade) {
            subscriber.push(key, old.clone(), new.clone());
        }
    }
}

impl<K> Drop for Subscribers<K> {
    fn drop(&mut self) {
        for subscriber in self.0.iter().filter_map(Weak::upgrade) {
            subscriber.backlog().closed = true;
            subscriber.notify.notify_one();
        }
    }
}

/// The receiving end.
pub struct Changes<K>(Arc<Subscriber<K>>);

impl<K> Changes<K> {
    pub(crate) fn new(subscriber: Arc<Subscriber<K>>) -> Self {
        Changes(subscriber)
    }

    /// The next change; None once the cache is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(change) = self.0.pop() {
                return change;
            }
            self.0.notify.notified().await;
        }
    }

    /// A change that is there already; never waits.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.0.pop().flatten()
    }
}
