//! The Deployment shell: applies a pass's plan to ReplicaSets, then writes the status that goes with it.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, owner_keys, run};
use controllers::deployment::{self, Action, REVISION, View};
use controllers::{owners, pods, selection};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube_client::informer::{Change, ObjectKey};
use kube_client::recorder::{Severity, reference};
use kube_client::{ClientError, DeleteOptions, PatchKind};
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;

const WORKERS: usize = 4;

struct Deployments(Arc<Context>);

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    feed(tasks, &context.caches.deployments, &queue, own_key);
    let seen = context.clone();
    feed(tasks, &context.caches.replica_sets, &queue, move |change| set_keys(&seen, change));
    let seen = context.clone();
    feed(tasks, &context.caches.pods, &queue, move |change| pod_keys(&seen, change));
    run(tasks, context, &queue, Deployments(context.clone()), WORKERS);
}

fn set_keys(context: &Context, change: &Change<ReplicaSet>) -> Vec<ObjectKey> {
    let mut keys = owner_keys(change, "Deployment");
    let meta = &change.object().metadata;
    if owners::controller_of(meta).is_none() {
        let all = context.caches.deployments.list_namespace(meta.namespace.as_deref().unwrap_or_default());
        let matching = all
            .iter()
            .filter(|d| d.spec.as_ref().is_some_and(|s| selection::matches(&s.selector, meta.labels.as_ref())));
        keys.extend(matching.map(|d| ObjectKey::of(&d.metadata)));
    }
    keys
}

/// Recreate waits for the last old pod; nothing else of a Deployment depends on single pods.
fn pod_keys(context: &Context, change: &Change<Pod>) -> Vec<ObjectKey> {
    let ended = match change {
        Change::Deleted { .. } => true,
        Change::Applied { new, .. } => pods::is_finished(new),
    };
    if !ended {
        return Vec::new();
    }
    let sets = owner_keys(change, "ReplicaSet").into_iter();
    let sets = sets.filter_map(|key| context.caches.replica_sets.get_key(&key));
    let owned = sets.filter_map(|set| {
        let owner = owners::controller_of(&set.metadata).filter(|o| o.kind == "Deployment")?;
        let key = ObjectKey::new(set.metadata.namespace.clone().unwrap_or_default(), owner.name.clone());
        let deployment = context.caches.deployments.get_key(&key)?;
        let strategy = deployment.spec.as_ref()?.strategy.as_ref()?;
        (strategy.type_.as_deref() == Some("Recreate")).then_some(key)
    });
    owned.collect()
}

impl Reconcile for Deployments {
    const NAME: &'static str = "deployment";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let caches = &self.0.caches;
        let Some(desired) = caches.deployments.get_key(key) else {
            return Ok(None);
        };
        let mut sets = caches.replica_sets.controlled_by(desired.metadata.uid.as_deref().unwrap_or_default());
        let orphans = caches.replica_sets.list_namespace(&key.namespace).into_iter();
        sets.extend(orphans.filter(|set| owners::controller_of(&set.metadata).is_none()));
        let pods: Vec<Arc<Pod>> = sets
            .iter()
            .flat_map(|set| caches.pods.controlled_by(set.metadata.uid.as_deref().unwrap_or_default()))
            .collect();
        let view = View { desired: &desired, sets: &sets, pods: &pods, now: Timestamp::now() };
        let decision = deployment::decide(&view);
        let mut live = Deployment::clone(&desired);
        let mut status = decision.status;
        for action in decision.actions {
            self.apply(&mut live, &mut status, action).await?;
        }
        if live.status.as_ref() != Some(&status) {
            live.status = Some(status);
            let written = self.0.client.api::<Deployment>().update_status(&live).await?;
            caches.deployments.observe(&written);
        }
        Ok(decision.wake_at)
    }
}

impl Deployments {
    async fn apply(
        &self,
        live: &mut Deployment,
        status: &mut DeploymentStatus,
        action: Action,
    ) -> Result<(), ClientError> {
        match action {
            Action::Create(set) => self.create(live, status, &set).await,
            Action::Update { set, scaled_from } => {
                let written = self.0.client.api::<ReplicaSet>().update(&set).await?;
                self.0.caches.replica_sets.observe(&written);
                if let Some(from) = scaled_from {
                    self.scaled(live, &written, from);
                }
                Ok(())
            }
            Action::Delete(set) => self.delete(&set).await,
            Action::Adopt(set) => {
                let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
                owners.push(owners::reference::<Deployment>(&live.metadata));
                self.set_owners(&set, json!(owners)).await
            }
            Action::Release(set) => {
                let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
                owners.retain(|o| Some(&o.uid) != live.metadata.uid.as_ref());
                self.set_owners(&set, json!(owners)).await
            }
            Action::SetRevision(revision) => {
                let patch = json!({"metadata": {"uid": live.metadata.uid, "annotations": {REVISION: revision}}});
                let api = self.0.client.api::<Deployment>();
                let api = api.namespace(live.metadata.namespace.clone().unwrap_or_default());
                let name = live.metadata.name.clone().unwrap_or_default();
                let mut written = api.patch(&name, PatchKind::Merge, &patch).await?;
                self.0.caches.deployments.observe(&written);
                // As the cache has it, so that what follows compares like with like.
                written.metadata.managed_fields = None;
                *live = written;
                Ok(())
            }
        }
    }

    async fn create(
        &self,
        live: &Deployment,
        status: &mut DeploymentStatus,
        set: &ReplicaSet,
    ) -> Result<(), ClientError> {
        match self.0.client.api::<ReplicaSet>().create(set).await {
            Ok(made) => {
                self.0.caches.replica_sets.observe(&made);
                self.scaled(live, &made, 0);
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                // Ours from a pass whose answer was lost will show in the cache; anything else needs another name.
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let namespace = set.metadata.namespace.clone().unwrap_or_default();
                let there = self.0.client.api::<ReplicaSet>().namespace(namespace).get_opt(name).await?;
                if there.is_some_and(|there| !owners::is_controlled_by(&there.metadata, &live.metadata)) {
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    return Ok(());
                }
                Err(error)
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", set.metadata.name);
                let about = reference(live);
                self.0.events.event(&about, Severity::Warning, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    fn scaled(&self, live: &Deployment, set: &ReplicaSet, from: i32) {
        let to = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let way = match to.cmp(&from) {
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => "up",
        };
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Scaled {way} replica set {name} from {from} to {to}");
        self.0.events.event(&reference(live), Severity::Normal, "ScalingReplicaSet", message);
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<(), ClientError> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let api = self.0.client.api::<ReplicaSet>().namespace(set.metadata.namespace.clone().unwrap_or_default());
        let guard = DeleteOptions {
            resource_version: set.metadata.resource_version.clone(),
            ..DeleteOptions::of(&set.metadata)
        };
        if let Some(None) = or_gone(api.delete(name, &guard).await)? {
            let key = ObjectKey::of(&set.metadata);
            self.0.caches.replica_sets.observe_gone(&key, set.metadata.uid.as_deref());
        }
        Ok(())
    }

    async fn set_owners(&self, set: &ReplicaSet, owners: serde_json::Value) -> Result<(), ClientError> {
        let patch = json!({"metadata": {
            "uid": set.metadata.uid, "resourceVersion": set.metadata.resource_version, "ownerReferences": owners,
        }});
        let api = self.0.client.api::<ReplicaSet>().namespace(set.metadata.namespace.clone().unwrap_or_default());
        let name = set.metadata.name.as_deref().unwrap_or_default();
        if let Some(changed) = or_gone(api.patch(name, PatchKind::Merge, &patch).await)? {
            self.0.caches.replica_sets.observe(&changed);
        }
        Ok(())
    }
}
