//! The DaemonSet shell.

use crate::Context;
use crate::pod_control;
use crate::revisions::{self, Applied};
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, owner_keys, run};
use controllers::daemonset::{self, Action, View};
use controllers::{owners, selection};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube_client::ClientError;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use std::sync::Arc;
use tokio::task::JoinSet;

struct DaemonSets(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.daemon_sets, &queue, own_key);
    feed(tasks, &context.caches.revisions, &queue, |change| owner_keys(change, "DaemonSet"));
    let seen = context.clone();
    feed(tasks, &context.caches.pods, &queue, move |change| pod_keys(&seen, change));
    let seen = context.clone();
    feed(tasks, &context.caches.nodes, &queue, move |change| node_keys(&seen, change));
    run(tasks, context, &queue, DaemonSets(context.clone()), 2);
}

fn pod_keys(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let mut keys = owner_keys(change, "DaemonSet");
    let meta = &change.object().metadata;
    if owners::controller_of(meta).is_none() {
        let sets = context.caches.daemon_sets.list_namespace(meta.namespace.as_deref().unwrap_or_default());
        let matching = sets
            .iter()
            .filter(|set| set.spec.as_ref().is_some_and(|s| selection::matches(&s.selector, meta.labels.as_ref())));
        keys.extend(matching.map(|set| ObjectKey::of(&set.metadata)));
    }
    keys
}

/// A heartbeat changes nothing that decides where daemons run.
fn node_keys(context: &Context, change: &Change<Node>) -> Vec<ObjectKey> {
    if let Change::Applied { old: Some(old), new } = change
        && old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
    {
        return Vec::new();
    }
    context.caches.daemon_sets.list().iter().map(|set| ObjectKey::of(&set.metadata)).collect()
}

impl Reconcile for DaemonSets {
    const NAME: &'static str = "daemonset";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.0.caches;
        let Some(set) = caches.daemon_sets.get_key(key) else {
            return Ok(None);
        };
        let pods = pod_control::candidates(&self.0, &set.metadata);
        let known = revisions::candidates(&self.0, &set.metadata);
        let nodes = caches.nodes.list();
        let view = View { set: &set, pods: &pods, nodes: &nodes, revisions: &known, now: Timestamp::now() };
        let decision = daemonset::decide(&view);
        let mut status = decision.status;
        let mut failed = None;
        for action in decision.actions {
            match self.apply(&set, action).await {
                Ok(Applied::Done) => {}
                Ok(Applied::NameTaken) => {
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    break;
                }
                Err(error) => failed = Some(error),
            }
        }
        if set.status.as_ref() != Some(&status) {
            let changed = DaemonSet { status: Some(status), ..DaemonSet::clone(&set) };
            let written = self.0.client.api::<DaemonSet>().update_status(&changed).await?;
            caches.daemon_sets.observe(&written);
        }
        failed.map_or(Ok(decision.wake_at), Err)
    }
}

impl DaemonSets {
    async fn apply(&self, set: &DaemonSet, action: Action) -> Result<Applied, ClientError> {
        let (context, about) = (&self.0, reference(set));
        match action {
            Action::Revision(action) => return revisions::apply::<DaemonSet>(context, &set.metadata, action).await,
            Action::Adopt(pod) => pod_control::adopt::<DaemonSet>(context, &set.metadata, &pod).await?,
            Action::Release(pod) => pod_control::release(context, &set.metadata, &pod).await?,
            Action::Create(pods) => pod_control::create(context, &about, &pods).await.1?,
            Action::Delete(pod) => pod_control::delete(context, &about, &pod).await?,
            Action::Event { warning, reason, message } => {
                let severity = if warning { Severity::Warning } else { Severity::Normal };
                context.events.event(&about, severity, reason, message);
            }
        }
        Ok(Applied::Done)
    }
}
