//! The pod collection shell: pods that were deleted before they had a node, and ended pods beyond the threshold.
//!
//! Pods of nodes that are gone are the node shell's.

use crate::Context;
use crate::pod_control;
use crate::runner::{Outcome, Queue, Reconcile, feed, run};
use controllers::{pod_gc, pods};
use kube_client::informer::{Change, ObjectKey};
use std::sync::Arc;
use tokio::task::JoinSet;

struct PodGc(Arc<Context>);

/// The key under which ended pods are counted.
const ENDED: &str = "";

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.pods, &queue, |change| {
        let Change::Applied { new: pod, .. } = change else { return Vec::new() };
        if pod_gc::is_stuck(pod) {
            return vec![ObjectKey::of(&pod.metadata)];
        }
        if pods::is_finished(pod) { vec![ObjectKey::new("", ENDED)] } else { Vec::new() }
    });
    run(tasks, context, &queue, PodGc(context.clone()), 1);
}

impl Reconcile for PodGc {
    const NAME: &'static str = "podgc";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let cache = &self.0.caches.pods;
        if key.name == ENDED {
            let ended = cache.with_word(crate::caches::ENDED_WORD);
            for pod in pod_gc::surplus(&ended, pod_gc::THRESHOLD) {
                pod_control::remove(&self.0, &pod, Some(0)).await?;
            }
        } else if let Some(pod) = cache.get_key(key).filter(|p| pod_gc::is_stuck(p)) {
            pod_control::remove(&self.0, &pod, Some(0)).await?;
        }
        Ok(None)
    }
}
