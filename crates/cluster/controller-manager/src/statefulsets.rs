//! The StatefulSet shell.

use crate::Context;
use crate::pod_control;
use crate::revisions::{self, Applied};
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, owner_keys, run};
use controllers::statefulset::{self, Action, View};
use controllers::{owners, selection};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube_client::ClientError;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use std::sync::Arc;
use tokio::task::JoinSet;

const WORKERS: usize = 2;

struct StatefulSets(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.stateful_sets, &queue, own_key);
    feed(tasks, &context.caches.revisions, &queue, |change| owner_keys(change, "StatefulSet"));
    let seen = context.clone();
    feed(tasks, &context.caches.pods, &queue, move |change| pod_keys(&seen, change));
    let seen = context.clone();
    feed(tasks, &context.caches.claims, &queue, move |change| claim_keys(&seen, change));
    run(tasks, context, &queue, StatefulSets(context.clone()), WORKERS);
}

fn pod_keys(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let mut keys = owner_keys(change, "StatefulSet");
    let meta = &change.object().metadata;
    if owners::controller_of(meta).is_none() {
        let sets = context.caches.stateful_sets.list_namespace(meta.namespace.as_deref().unwrap_or_default());
        let matching = sets
            .iter()
            .filter(|set| set.spec.as_ref().is_some_and(|s| selection::matches(&s.selector, meta.labels.as_ref())));
        keys.extend(matching.map(|set| ObjectKey::of(&set.metadata)));
    }
    keys
}

/// A claim that ended makes room for a new one of its name.
fn claim_keys(context: &Context, change: &Change<PersistentVolumeClaim>) -> Vec<ObjectKey> {
    let Change::Deleted { last } = change else { return Vec::new() };
    let meta = &last.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let sets = context.caches.stateful_sets.list_namespace(meta.namespace.as_deref().unwrap_or_default());
    let related = |set: &StatefulSet| name.contains(set.metadata.name.as_deref().unwrap_or("\0"));
    sets.iter().filter(|set| related(set)).map(|set| ObjectKey::of(&set.metadata)).collect()
}

impl Reconcile for StatefulSets {
    const NAME: &'static str = "statefulset";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.0.caches;
        let Some(set) = caches.stateful_sets.get_key(key) else {
            return Ok(None);
        };
        let pods = pod_control::candidates(&self.0, &set.metadata);
        let known = revisions::candidates(&self.0, &set.metadata);
        let claims = caches.claims.list_namespace(&key.namespace);
        let view = View { set: &set, pods: &pods, claims: &claims, revisions: &known, now: Timestamp::now() };
        let decision = statefulset::decide(&view);
        let mut status = decision.status;
        let mut failed = None;
        for action in decision.actions {
            match self.apply(&set, action).await {
                Ok(Applied::Done) => {}
                Ok(Applied::NameTaken) => {
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    break;
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if set.status.as_ref() != Some(&status) {
            let changed = StatefulSet { status: Some(status), ..StatefulSet::clone(&set) };
            let written = self.0.client.api::<StatefulSet>().update_status(&changed).await?;
            caches.stateful_sets.observe(&written);
        }
        failed.map_or(Ok(decision.wake_at), Err)
    }
}

impl StatefulSets {
    async fn apply(&self, set: &StatefulSet, action: Action) -> Result<Applied, ClientError> {
        let context = &self.0;
        match action {
            Action::Revision(action) => return revisions::apply::<StatefulSet>(context, &set.metadata, action).await,
            Action::Adopt(pod) => pod_control::adopt::<StatefulSet>(context, &set.metadata, &pod).await?,
            Action::Release(pod) => pod_control::release(context, &set.metadata, &pod).await?,
            Action::CreateClaim { claim, pod } => self.create_claim(set, &claim, &pod).await?,
            Action::UpdateClaim(claim) => {
                let written = context.client.api::<PersistentVolumeClaim>().update(&claim).await?;
                context.caches.claims.observe(&written);
            }
            Action::CreatePod(pod) => self.create_pod(set, &pod).await?,
            Action::UpdatePod(pod) => {
                let written = context.client.api::<Pod>().update(&pod).await?;
                context.caches.pods.observe(&written);
            }
            Action::DeletePod(pod) => {
                pod_control::remove(context, &pod, None).await?;
                self.say(set, "SuccessfulDelete", &format!("delete Pod {}", name(&pod)), "successful");
            }
            Action::Event { reason, message } => {
                context.events.event(&reference(set), Severity::Warning, reason, message);
            }
        }
        Ok(Applied::Done)
    }

    fn say(&self, set: &StatefulSet, reason: &str, what: &str, how: &str) {
        let set_name = set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("{what} in StatefulSet {set_name} {how}");
        let severity = if reason.starts_with("Failed") { Severity::Warning } else { Severity::Normal };
        self.0.events.event(&reference(set), severity, reason, message);
    }

    async fn create_claim(
        &self,
        set: &StatefulSet,
        claim: &PersistentVolumeClaim,
        pod: &str,
    ) -> Result<(), ClientError> {
        let what = format!("create Claim {} Pod {pod}", claim.metadata.name.as_deref().unwrap_or_default());
        match self.0.client.api::<PersistentVolumeClaim>().create(claim).await {
            Ok(made) => {
                self.0.caches.claims.observe(&made);
                self.say(set, "SuccessfulCreate", &what, "success");
                Ok(())
            }
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.say(set, "FailedCreate", &what, &format!("failed error: {error}"));
                Err(error)
            }
        }
    }

    async fn create_pod(&self, set: &StatefulSet, pod: &Pod) -> Result<(), ClientError> {
        let what = format!("create Pod {}", name(pod));
        match self.0.client.api::<Pod>().create(pod).await {
            Ok(made) => {
                self.0.caches.pods.observe(&made);
                self.say(set, "SuccessfulCreate", &what, "successful");
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.say(set, "FailedCreate", &what, &format!("failed error: {error}"));
                Err(error)
            }
        }
    }
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
