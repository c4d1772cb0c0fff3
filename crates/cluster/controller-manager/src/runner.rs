//! The loop that every controller runs in.
//!
//! `feed` turns a cache's changes into keys, `run` takes keys from the queue and hands them to a `Reconcile`.
//! Invariants: one key is handled by one worker at a time; a failure comes back with a growing pause; a conflict or a
//! missing object is no failure worth a warning, it only means that the view was old.

use crate::Context;
use jiff::Timestamp;
use kube_client::informer::{Cache, Change, ObjectKey};
use kube_client::queue::WorkQueue;
use kube_client::{ClientError, Object};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

pub(crate) type Queue = Arc<WorkQueue<ObjectKey>>;

/// When to look at the key again, if nothing happens before.
pub(crate) type Outcome = Result<Option<Timestamp>, ClientError>;

pub(crate) trait Reconcile: Send + Sync + 'static {
    const NAME: &'static str;
    fn reconcile(&self, key: &ObjectKey) -> impl Future<Output = Outcome> + Send;
}

/// Queues the keys that `keys` names for each change.
pub(crate) fn feed<K: Object>(
    tasks: &mut JoinSet<()>,
    cache: &Cache<K>,
    queue: &Queue,
    keys: impl Fn(&Change<K>) -> Vec<ObjectKey> + Send + 'static,
) {
    let (mut changes, queue) = (cache.changes(), queue.clone());
    tasks.spawn(async move {
        while let Some(change) = changes.next().await {
            for key in keys(&change) {
                queue.add(key);
            }
        }
    });
}

/// The changed object's own key.
pub(crate) fn own_key<K: Object>(change: &Change<K>) -> Vec<ObjectKey> {
    vec![ObjectKey::of(change.object().metadata())]
}

/// The keys of the controlling owners of `kind`, before and after.
pub(crate) fn owner_keys<K: Object>(change: &Change<K>, kind: &str) -> Vec<ObjectKey> {
    let owners = change.sides().filter_map(|object| {
        let meta = object.metadata();
        let owner = controllers::owners::controller_of(meta).filter(|o| o.kind == kind)?;
        Some(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
    });
    owners.collect()
}

pub(crate) fn run<R: Reconcile>(
    tasks: &mut JoinSet<()>,
    context: &Arc<Context>,
    queue: &Queue,
    reconciler: R,
    workers: usize,
) {
    let reconciler = Arc::new(reconciler);
    for _ in 0..workers {
        let (context, queue, reconciler) = (context.clone(), queue.clone(), reconciler.clone());
        tasks.spawn(async move {
            context.caches.synced().await;
            while let Some(key) = queue.next().await {
                let outcome = reconciler.reconcile(&key).await;
                settle::<R>(&queue, &key, outcome);
                queue.done(&key);
            }
        });
    }
}

fn settle<R: Reconcile>(queue: &Queue, key: &ObjectKey, outcome: Outcome) {
    match outcome {
        Ok(wake_at) => {
            queue.forget(key);
            if let Some(at) = wake_at {
                queue.add_after(key.clone(), until(at));
            }
        }
        Err(error) => {
            if error.is_conflict() || error.is_not_found() {
                tracing::debug!(controller = R::NAME, %key, %error, "the view was old");
            } else {
                tracing::warn!(controller = R::NAME, %key, %error, "will be tried again");
            }
            queue.add_rate_limited(key.clone());
        }
    }
}

fn until(at: Timestamp) -> Duration {
    // A little later than asked: the decision compares with `>=` on a clock of its own.
    let left = Timestamp::now().duration_until(at);
    Duration::try_from(left).unwrap_or_default() + Duration::from_millis(1)
}

/// Taken by writes whose object is gone already: that is what they wanted.
pub(crate) fn or_gone<T>(result: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
