//! The PodDisruptionBudget shell.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, run};
use controllers::disruption::{self, View};
use controllers::{owners, selection};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube_client::Object;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

struct Budgets(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    let caches = &context.caches;
    feed(tasks, &caches.budgets, &queue, own_key);
    let seen = context.clone();
    feed(tasks, &caches.pods, &queue, move |change| of_pod(&seen, change));
    // What a controller wants decides what a share means.
    let seen = context.clone();
    feed(tasks, &caches.deployments, &queue, move |change| of_namespace(&seen, change));
    let seen = context.clone();
    feed(tasks, &caches.stateful_sets, &queue, move |change| of_namespace(&seen, change));
    run(tasks, context, &queue, Budgets(context.clone()), 1);
}

fn of_pod(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
    let budgets = context.caches.budgets.list_namespace(namespace);
    let about = |budget: &PodDisruptionBudget| {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        selector.is_some_and(|s| change.sides().any(|pod| selection::matches(s, pod.metadata.labels.as_ref())))
    };
    budgets.iter().filter(|b| about(b)).map(|b| ObjectKey::of(&b.metadata)).collect()
}

fn of_namespace<K: Object>(context: &Context, change: &Change<K>) -> Vec<ObjectKey> {
    // A change of status moves nothing: the generation counts changes of what is wanted.
    if let Change::Applied { old: Some(old), new } = change
        && old.metadata().generation == new.metadata().generation
    {
        return Vec::new();
    }
    let namespace = change.object().metadata().namespace.as_deref().unwrap_or_default();
    context.caches.budgets.list_namespace(namespace).iter().map(|b| ObjectKey::of(&b.metadata)).collect()
}

impl Reconcile for Budgets {
    const NAME: &'static str = "disruption";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.0.caches;
        let Some(budget) = caches.budgets.get_key(key) else {
            return Ok(None);
        };
        let pods = disruption::covered(&budget, &caches.pods.list_namespace(&key.namespace));
        let scale = self.scale(&pods);
        let decision = disruption::decide(&View { budget: &budget, pods: &pods, scale, now: Timestamp::now() });
        if budget.status.as_ref() != Some(&decision.status) {
            if decision.empty {
                self.0.events.event(&reference(&*budget), Severity::Normal, "NoPods", "No matching pods found");
            }
            let changed = PodDisruptionBudget { status: Some(decision.status), ..PodDisruptionBudget::clone(&budget) };
            let written = self.0.client.api::<PodDisruptionBudget>().update_status(&changed).await?;
            caches.budgets.observe(&written);
        }
        Ok(decision.wake_at)
    }
}

impl Budgets {
    /// The replicas that the controllers of the pods want together; pods without a controller do not count.
    fn scale(&self, pods: &[Arc<Pod>]) -> Option<i32> {
        let caches = &self.0.caches;
        let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = owners::controller_of(&pod.metadata) else { continue };
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if wanted.contains_key(&owner.uid) {
                continue;
            }
            let (uid, replicas) = match owner.kind.as_str() {
                "ReplicaSet" => {
                    let set = caches.replica_sets.get(namespace, &owner.name)?;
                    let above = owners::controller_of(&set.metadata).filter(|o| o.kind == "Deployment");
                    match above.and_then(|o| caches.deployments.get(namespace, &o.name)) {
                        Some(deployment) => {
                            let uid = deployment.metadata.uid.clone().unwrap_or_default();
                            (uid, deployment.spec.as_ref()?.replicas)
                        }
                        None => (owner.uid.clone(), set.spec.as_ref()?.replicas),
                    }
                }
                "StatefulSet" => {
                    let set = caches.stateful_sets.get(namespace, &owner.name)?;
                    (owner.uid.clone(), set.spec.as_ref()?.replicas)
                }
                "ReplicationController" => {
                    let set = caches.replication.get(namespace, &owner.name)?;
                    (owner.uid.clone(), set.spec.as_ref()?.replicas)
                }
                _ => return None,
            };
            wanted.insert(uid, replicas.unwrap_or(1));
        }
        Some(wanted.values().sum())
    }
}
