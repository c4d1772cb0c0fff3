//! Keys to look at: each is queued once, never handled twice at a time, and comes again later when it failed.
//!
//! The heart of every controller's shell. Invariants: a key that is added while it is handled is handled once more
//! afterwards; memory is bounded by the number of distinct keys; waiting costs one timer, for the earliest deadline.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first pause after a failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    notify: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Queued, or to be queued again when their handling ends.
    dirty: HashSet<T>,
    handled: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    /// The deadline that counts for a key: the earliest.
    deadlines: HashMap<T, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<T, u32>,
    closed: bool,
}

impl<T: Clone + Eq + Hash + Send> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash + Send> WorkQueue<T> {
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            handled: HashSet::new(),
            delayed: BTreeMap::new(),
            deadlines: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            closed: false,
        };
        WorkQueue { state: Mutex::new(state), notify: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, key: T) {
        self.state().enqueue(key);
        self.notify.notify_one();
    }

    /// Adds the key after `delay`. Of several delays the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.state().delay(key, Instant::now() + delay);
        self.notify.notify_one();
    }

    /// Adds the key after a pause that doubles with every failure since the last `forget`.
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.state();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_PAUSE);
        self.add_after(key, pause);
    }

    /// The key succeeded: its next failure begins with the shortest pause again.
    pub fn forget(&self, key: &T) {
        self.state().failures.remove(key);
    }

    /// The next key to handle; `done` must follow. None once the queue is closed. Cancel-safe.
    pub async fn next(&self) -> Option<T> {
        loop {
            let deadline = {
                let mut state = self.state();
                if state.closed {
                    // Let the other workers see it too.
                    self.notify.notify_one();
                    return None;
                }
                state.wake_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.handled.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.notify.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.first_key_value().map(|((at, _), _)| *at)
            };
            match deadline {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.notify.notified()).await;
                }
                None => self.notify.notified().await,
            }
        }
    }

    /// The handling of `key` has ended.
    pub fn done(&self, key: &T) {
        let mut state = self.state();
        state.handled.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.notify.notify_one();
        }
    }

    pub fn close(&self) {
        self.state().closed = true;
        self.notify.notify_one();
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn enqueue(&mut self, key: T) {
        if let Some(deadline) = self.deadlines.remove(&key) {
            self.delayed.remove(&deadline);
        }
        if self.dirty.insert(key.clone()) && !self.handled.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: T, at: Instant) {
        if self.dirty.contains(&key) {
            return;
        }
        if let Some(earlier) = self.deadlines.get(&key) {
            if earlier.0 <= at {
                return;
            }
            self.delayed.remove(earlier);
        }
        self.sequence += 1;
        self.delayed.insert((at, self.sequence), key.clone());
        self.deadlines.insert(key, (at, self.sequence));
    }

    fn wake_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.deadlines.remove(&key);
            self.enqueue(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing_within(queue: &WorkQueue<&'static str>, ms: u64) -> bool {
        tokio::time::timeout(Duration::from_millis(ms), queue.next()).await.is_err()
    }

    #[tokio::test]
    async fn a_key_is_queued_once_and_never_handled_twice_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, Some("b"), "a is still being handled");
        queue.done(&"a");
        assert_eq!(queue.next().await, Some("a"), "a changed while it was handled");
        queue.done(&"a");
        assert!(nothing_within(&queue, 20).await);
    }

    #[tokio::test]
    async fn the_earliest_delay_counts_and_an_add_overtakes_it() {
        let (queue, begin) = (WorkQueue::new(), Instant::now());
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_millis(30));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("b", Duration::from_secs(50));
        assert_eq!(queue.next().await, Some("a"));
        assert!((30..4000).contains(&begin.elapsed().as_millis()));
        queue.done(&"a");
        queue.add("b");
        assert_eq!(queue.next().await, Some("b"));
        queue.done(&"b");
        assert!(nothing_within(&queue, 20).await, "an overtaken delay is void");
    }

    #[tokio::test]
    async fn failures_double_the_pause_until_the_key_is_forgotten() {
        let queue = WorkQueue::new();
        let begin = Instant::now();
        for _ in 0..4 {
            queue.add_rate_limited("a");
            let key = queue.next().await.unwrap();
            queue.done(&key);
        }
        assert!(begin.elapsed() >= FIRST_PAUSE * (1 + 2 + 4 + 8), "{:?}", begin.elapsed());
        assert_eq!(queue.state().failures.get(&"a"), Some(&4));
        queue.forget(&"a");
        assert!(queue.state().failures.is_empty());
    }

    #[tokio::test]
    async fn closing_releases_every_waiter() {
        let queue = std::sync::Arc::new(WorkQueue::<u8>::new());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), None);
        }
    }
}
