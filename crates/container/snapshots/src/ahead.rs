//! Unpacking ahead of knowledge: a blob of an archive that looks like a layer is unpacked while the archive is still
//! being read, before it is known which image it belongs to and what lies below it.
//!
//! `distribution` uses it for `docker load`. What turns out to be no layer, or to stand elsewhere than it can, is thrown
//! away; nothing that is unpacked ahead is visible before [`Ahead::take`] has checked it against the image.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use oci::Digest;

use crate::snapshots::{Alone, Snapshots};

/// Blobs that wait at once; beyond that the ordinary way is as good.
const QUEUE: usize = 64;

/// Unpacks blobs beside its caller. Dropped, it ends its threads and removes what nobody took.
pub struct Ahead {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Digest>,
    working: usize,
    done: HashMap<Digest, Alone>,
    closed: bool,
}

impl Ahead {
    pub fn new(snapshots: &Snapshots) -> Self {
        let queue = Arc::new(Queue::default());
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4);
        let start = |_| {
            let (queue, snapshots) = (Arc::clone(&queue), snapshots.clone());
            std::thread::spawn(move || queue.work(&snapshots))
        };
        let workers = (0..threads).map(start).collect();
        Self { queue, workers }
    }

    /// Begins with a blob that was just stored.
    pub fn begin(&self, digest: Digest) {
        let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() < QUEUE {
            state.waiting.push(digest);
            self.queue.changed.notify_all();
        }
    }

    /// Everything that was unpacked, once all of it is.
    pub fn take(self) -> HashMap<Digest, Alone> {
        let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.waiting.is_empty() || state.working > 0 {
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.done)
    }
}

impl Queue {
    fn work(&self, snapshots: &Snapshots) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(digest) = state.waiting.pop() {
                state.working += 1;
                drop(state);
                // A failure is told by whoever unpacks it in earnest.
                let alone =
                    snapshots.stage_alone(&digest).inspect_err(|error| tracing::debug!(%error, "not unpacked ahead"));
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.working -= 1;
                if let Ok(alone) = alone {
                    state.done.insert(digest, alone);
                }
                self.changed.notify_all();
            } else if state.closed {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.waiting.clear();
            state.closed = true;
            self.queue.changed.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}
