//! The garbage collection shell: watches every kind that owns or is owned, and deletes what has lost its owners.
//!
//! Invariants: before anything is deleted the server itself is asked whether the owner is gone; deletions carry the
//! uid. Owners of any kind count (they are looked up by discovery); dependents are found for the kinds listed in
//! `spawn` and for custom resources (`custom`).

use crate::Context;
use crate::discovery::{self, Place, request};
use crate::graph::{Graph, Item, owners};
use crate::runner::{Outcome, Queue, Reconcile, run};
use bytes::Bytes;
use controllers::garbage::{self, Action, FOREGROUND, Manner, Owner, View};
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube_client::informer::{Cache, Change, ObjectKey, Scope};
use kube_client::{ClientError, Object, Partial};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

const WORKERS: usize = 4;

pub(crate) type Shared = Arc<Mutex<Graph>>;

struct Collector {
    context: Arc<Context>,
    graph: Shared,
    queue: Queue,
    places: tokio::sync::Mutex<Vec<Place>>,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let (queue, graph) = (Queue::default(), Shared::default());
    let caches = &context.caches;
    feed(tasks, &caches.pods, &graph, &queue);
    feed(tasks, &caches.replica_sets, &graph, &queue);
    feed(tasks, &caches.deployments, &graph, &queue);
    feed(tasks, &caches.services, &graph, &queue);
    feed(tasks, &caches.slices, &graph, &queue);
    feed(tasks, &caches.endpoints, &graph, &queue);
    feed(tasks, &caches.nodes, &graph, &queue);
    feed(tasks, &caches.replication, &graph, &queue);
    feed_partial::<ServiceAccount>(tasks, context, &graph, &queue);
    feed_partial::<ConfigMap>(tasks, context, &graph, &queue);
    feed_partial::<Secret>(tasks, context, &graph, &queue);
    feed(tasks, &caches.claims, &graph, &queue);
    feed(tasks, &caches.stateful_sets, &graph, &queue);
    feed(tasks, &caches.daemon_sets, &graph, &queue);
    feed(tasks, &caches.revisions, &graph, &queue);
    feed(tasks, &caches.jobs, &graph, &queue);
    feed(tasks, &caches.cron_jobs, &graph, &queue);
    feed_partial::<Ingress>(tasks, context, &graph, &queue);
    feed(tasks, &caches.budgets, &graph, &queue);
    crate::custom::spawn(tasks, context, &graph, &queue);
    let collector = Collector { context: context.clone(), graph, queue: queue.clone(), places: Default::default() };
    run(tasks, context, &queue, collector, WORKERS);
}

/// Watches a kind of which nothing but the metadata is kept.
fn feed_partial<K: Object>(tasks: &mut JoinSet<()>, context: &Context, graph: &Shared, queue: &Queue) {
    feed(tasks, &Cache::<Partial<K>>::start(&context.client, Scope::default()), graph, queue);
}

/// Keys here are uids.
fn feed<K: Object>(tasks: &mut JoinSet<()>, cache: &Cache<K>, graph: &Shared, queue: &Queue) {
    let (cache, graph, queue) = (cache.clone(), graph.clone(), queue.clone());
    tasks.spawn(async move {
        let mut changes = cache.changes();
        while let Some(change) = changes.next().await {
            for uid in take_in(&mut lock(&graph), &change) {
                queue.add(ObjectKey::new("", uid));
            }
        }
    });
}

/// Updates the graph; says whose situation changed.
fn take_in<K: Object>(graph: &mut Graph, change: &Change<K>) -> Vec<String> {
    let uid = |object: &K| object.metadata().uid.clone().unwrap_or_default();
    let (gone, here) = match change {
        Change::Deleted { last } => (Some(last), None),
        Change::Applied { old: Some(old), new } if uid(old) != uid(new) => (Some(old), Some(new)),
        Change::Applied { new, .. } => (None, Some(new)),
    };
    let here = here.map(|here| Item {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        meta: here.metadata().clone(),
    });
    absorb(graph, gone.map(|gone| gone.metadata()), here)
}

/// The same for an object of any kind.
pub(crate) fn absorb(graph: &mut Graph, gone: Option<&ObjectMeta>, here: Option<Item>) -> Vec<String> {
    let mut affected = Vec::new();
    if let Some(gone) = gone {
        affected.extend(graph.remove(gone.uid.as_deref().unwrap_or_default()));
        // An owner that waits for this one may go now.
        affected.extend(owners(gone).map(str::to_owned));
    }
    if let Some(here) = here {
        let meta = &here.meta;
        let held = meta.deletion_timestamp.is_some() && meta.finalizers.is_some();
        if meta.owner_references.as_ref().is_some_and(|o| !o.is_empty()) || held {
            affected.extend(meta.uid.clone());
        }
        graph.put(here);
    }
    affected
}

pub(crate) fn lock(graph: &Shared) -> MutexGuard<'_, Graph> {
    graph.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reconcile for Collector {
    const NAME: &'static str = "garbage";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let (item, dependents) = {
            let graph = lock(&self.graph);
            let Some(item) = graph.get(&key.name).cloned() else {
                return Ok(None);
            };
            (item, graph.dependents(&key.name).cloned().collect::<Vec<_>>())
        };
        let mut owners = Vec::new();
        if item.meta.deletion_timestamp.is_none() {
            for owner in item.meta.owner_references.iter().flatten() {
                owners.push((owner.clone(), self.owner_state(&item.meta, owner).await?));
            }
        }
        let metas: Vec<&ObjectMeta> = dependents.iter().map(|d| &d.meta).collect();
        let action = garbage::decide(&View { object: &item.meta, owners: &owners, dependents: &metas });
        self.apply(&item, &dependents, action).await?;
        Ok(None)
    }
}

impl Collector {
    async fn owner_state(&self, object: &ObjectMeta, owner: &OwnerReference) -> Result<Owner, ClientError> {
        if let Some(known) = lock(&self.graph).get(&owner.uid) {
            return Ok(garbage::owner_state(&known.meta));
        }
        let Some(place) = self.place(&owner.api_version, &owner.kind).await? else {
            // A kind that the server does not know (any more) is no proof that the owner is gone.
            return Ok(Owner::Present);
        };
        let path = place.path(object.namespace.as_deref().unwrap_or_default(), &owner.name);
        let answer = match self.context.client.raw(discovery::get(&path)?).await {
            Ok(answer) => answer,
            Err(error) if error.is_not_found() => return Ok(Owner::Gone),
            Err(error) => return Err(error),
        };
        if answer["metadata"]["uid"] != owner.uid.as_str() {
            return Ok(Owner::Gone);
        }
        let meta: ObjectMeta = serde_json::from_value(answer["metadata"].clone())
            .map_err(|source| ClientError::Decode { what: path, source })?;
        Ok(garbage::owner_state(&meta))
    }

    async fn place(&self, api_version: &str, kind: &str) -> Result<Option<Place>, ClientError> {
        let mut places = self.places.lock().await;
        let find = |places: &[Place]| places.iter().find(|p| p.api_version == api_version && p.kind == kind).cloned();
        if let Some(place) = find(&places) {
            return Ok(Some(place));
        }
        match discovery::of_group(&self.context.client, api_version).await {
            Ok(more) => places.extend(more),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(find(&places))
    }

    async fn apply(&self, item: &Item, dependents: &[Item], action: Action) -> Result<(), ClientError> {
        match action {
            Action::Nothing => Ok(()),
            Action::Delete(manner) => self.delete(item, manner).await,
            Action::SetOwners(owners) => self.patch(item, json!({"ownerReferences": owners})).await,
            Action::DeleteDependents => {
                for dependent in dependents.iter().filter(|d| d.meta.deletion_timestamp.is_none()) {
                    let below = dependent.meta.uid.as_deref().unwrap_or_default();
                    let has_own = lock(&self.graph).dependents(below).next().is_some();
                    let manner = if has_own { Manner::Foreground } else { Manner::Background };
                    self.delete(dependent, manner).await?;
                }
                Ok(())
            }
            Action::OrphanDependents => {
                for dependent in dependents {
                    let mut owners = dependent.meta.owner_references.clone().unwrap_or_default();
                    owners.retain(|o| Some(&o.uid) != item.meta.uid.as_ref());
                    self.patch(dependent, json!({"ownerReferences": owners})).await?;
                }
                let uid = item.meta.uid.clone().unwrap_or_default();
                self.queue.add(ObjectKey::new("", uid));
                Ok(())
            }
            Action::ReleaseFinalizer(name) => {
                let mut finalizers = item.meta.finalizers.clone().unwrap_or_default();
                finalizers.retain(|f| f != name);
                debug_assert!(name == FOREGROUND || name == garbage::ORPHAN);
                self.patch(item, json!({"finalizers": finalizers})).await
            }
        }
    }

    async fn delete(&self, item: &Item, manner: Manner) -> Result<(), ClientError> {
        let policy = match manner {
            Manner::Background => "Background",
            Manner::Foreground => "Foreground",
            Manner::Orphan => "Orphan",
        };
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy,
            "preconditions": {"uid": item.meta.uid}});
        self.send(item, Method::DELETE, "application/json", &options).await
    }

    /// Merges into the metadata, guarded by what was seen.
    async fn patch(&self, item: &Item, mut metadata: Value) -> Result<(), ClientError> {
        metadata["uid"] = json!(item.meta.uid);
        metadata["resourceVersion"] = json!(item.meta.resource_version);
        let body = json!({"metadata": metadata});
        self.send(item, Method::PATCH, "application/merge-patch+json", &body).await
    }

    async fn send(&self, item: &Item, method: Method, content_type: &str, body: &Value) -> Result<(), ClientError> {
        let Some(place) = self.place(&item.api_version, &item.kind).await? else {
            return Ok(());
        };
        let namespace = item.meta.namespace.as_deref().unwrap_or_default();
        let path = place.path(namespace, item.meta.name.as_deref().unwrap_or_default());
        let request: http::Request<Bytes> = request(method, &path, content_type, Some(body))?;
        match self.context.client.raw(request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
