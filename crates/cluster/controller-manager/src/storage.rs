//! The storage shells: claims and volumes are brought together, made, protected and let go; pods get ephemeral claims.
//!
//! Invariant: before a volume is given up the server itself is asked whether its claim is gone.

use crate::Context;
use crate::runner::{Outcome, Queue, Reconcile, feed, or_gone, own_key, run};
use controllers::storage::{self, Action, ClaimView, VolumeAction};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube_client::informer::{Cache, Change, ObjectKey, Scope};
use kube_client::recorder::{Severity, reference};
use kube_client::{ClientError, DeleteOptions, PatchKind};
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;

struct Shared {
    context: Arc<Context>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
}

struct Claims(Arc<Shared>);
struct Volumes(Arc<Shared>);
struct Ephemeral(Arc<Shared>);

/// What a pod that uses the claim is found by.
pub(crate) fn claim_word(namespace: &str, claim: &str) -> String {
    format!("claim/{namespace}/{claim}")
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let shared = Arc::new(Shared {
        context: context.clone(),
        volumes: Cache::start(&context.client, Scope::default()),
        classes: Cache::start(&context.client, Scope::default()),
    });
    let (claims, volumes, pods) = (Queue::default(), Queue::default(), Queue::default());
    feed(tasks, &context.caches.claims, &claims, own_key);
    feed(tasks, &shared.volumes, &volumes, own_key);
    // A volume that is new or was let go may be what a claim waits for.
    let seen = shared.clone();
    feed(tasks, &shared.volumes, &claims, move |change| seen.claims_for(change));
    let seen = shared.clone();
    feed(tasks, &shared.classes, &claims, move |_| seen.unbound());
    let seen = shared.clone();
    feed(tasks, &context.caches.nodes, &claims, move |change: &Change<Node>| match change {
        Change::Applied { old: None, .. } => seen.unbound(),
        Change::Applied { .. } | Change::Deleted { .. } => Vec::new(),
    });
    feed(tasks, &context.caches.claims, &volumes, |change| {
        let names = change.sides().filter_map(|c| c.spec.as_ref()?.volume_name.clone());
        names.map(|name| ObjectKey::new("", name)).collect()
    });
    feed(tasks, &context.caches.pods, &claims, |change| {
        let pod = change.object();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        storage::claims_of(pod).into_iter().map(|name| ObjectKey::new(namespace.clone(), name)).collect()
    });
    feed(tasks, &context.caches.pods, &pods, |change| {
        let volumes = change.object().spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten();
        if volumes.into_iter().any(|v| v.ephemeral.is_some()) { own_key(change) } else { Vec::new() }
    });
    run(tasks, context, &claims, Claims(shared.clone()), 1);
    run(tasks, context, &volumes, Volumes(shared.clone()), 1);
    run(tasks, context, &pods, Ephemeral(shared.clone()), 1);
    let client = context.client.clone();
    tasks.spawn(async move {
        // The class that is always there; one of that name that a user made stays as it is.
        match client.api::<StorageClass>().create(&storage::default_class()).await {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) => tracing::warn!(%error, "the default storage class could not be made"),
        }
    });
}

impl Shared {
    fn unbound(&self) -> Vec<ObjectKey> {
        let bound = |c: &PersistentVolumeClaim| c.spec.as_ref().is_some_and(|s| s.volume_name.is_some());
        let claims = self.context.caches.claims.list();
        claims.iter().filter(|c| !bound(c)).map(|c| ObjectKey::of(&c.metadata)).collect()
    }

    fn claims_for(&self, change: &Change<PersistentVolume>) -> Vec<ObjectKey> {
        let references = change.sides().filter_map(|v| v.spec.as_ref()?.claim_ref.clone());
        let mut keys: Vec<ObjectKey> =
            references.map(|r| ObjectKey::new(r.namespace.unwrap_or_default(), r.name.unwrap_or_default())).collect();
        if keys.is_empty() {
            keys = self.unbound();
        }
        keys
    }

    async fn synced(&self) {
        self.volumes.synced().await;
        self.classes.synced().await;
    }

    /// Replaces the finalizers, guarded by what was seen. None: the object is gone.
    fn finalizers_patch(
        meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        list: &[String],
    ) -> serde_json::Value {
        json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": list}})
    }
}

impl Reconcile for Claims {
    const NAME: &'static str = "persistentvolumeclaim";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let shared = &self.0;
        shared.synced().await;
        let caches = &shared.context.caches;
        let Some(claim) = caches.claims.get_key(key) else { return Ok(None) };
        let users: Vec<Arc<Pod>> = caches.pods.with_word(&claim_word(&key.namespace, &key.name));
        if let Some(list) = storage::claim_finalizers(&claim, &users) {
            let api = shared.context.client.api::<PersistentVolumeClaim>().namespace(key.namespace.clone());
            let patch = Shared::finalizers_patch(&claim.metadata, &list);
            match or_gone(api.patch(&key.name, PatchKind::Merge, &patch).await)? {
                Some(written) if written.metadata.deletion_timestamp.is_none() || !list.is_empty() => {
                    caches.claims.observe(&written);
                }
                Some(_) | None => caches.claims.observe_gone(key, claim.metadata.uid.as_deref()),
            }
            return Ok(None);
        }
        let view = ClaimView {
            claim: &claim,
            volumes: &shared.volumes.list(),
            classes: &shared.classes.list(),
            nodes: &caches.nodes.list(),
            local_root: &shared.context.config.local_volumes,
        };
        let decision = storage::decide_claim(&view);
        for action in decision.actions {
            self.apply(&claim, action).await?;
        }
        if let Some(status) = decision.status.filter(|s| claim.status.as_ref() != Some(s)) {
            let changed = PersistentVolumeClaim { status: Some(status), ..PersistentVolumeClaim::clone(&claim) };
            let written = shared.context.client.api::<PersistentVolumeClaim>().update_status(&changed).await?;
            caches.claims.observe(&written);
        }
        Ok(None)
    }
}

impl Claims {
    async fn apply(&self, claim: &PersistentVolumeClaim, action: Action) -> Result<(), ClientError> {
        let shared = &self.0;
        let volumes = shared.context.client.api::<PersistentVolume>();
        match action {
            Action::UpdateClaim(changed) => {
                let written = shared.context.client.api::<PersistentVolumeClaim>().update(&changed).await?;
                shared.context.caches.claims.observe(&written);
            }
            Action::CreateVolume(volume) => match volumes.create(&volume).await {
                Ok(made) => shared.volumes.observe(&made),
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    let message = format!("failed to provision volume: {error}");
                    let about = reference(claim);
                    shared.context.events.event(&about, Severity::Warning, "ProvisioningFailed", message);
                    return Err(error);
                }
            },
            Action::UpdateVolume(volume) => shared.volumes.observe(&volumes.update(&volume).await?),
            Action::Event { warning, reason, message } => {
                let severity = if warning { Severity::Warning } else { Severity::Normal };
                shared.context.events.event(&reference(claim), severity, reason, message);
            }
        }
        Ok(())
    }
}

impl Reconcile for Volumes {
    const NAME: &'static str = "persistentvolume";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let shared = &self.0;
        shared.synced().await;
        let Some(volume) = shared.volumes.get_key(key) else { return Ok(None) };
        let api = shared.context.client.api::<PersistentVolume>();
        if let Some(list) = storage::volume_finalizers(&volume) {
            let patch = Shared::finalizers_patch(&volume.metadata, &list);
            match or_gone(api.patch(&key.name, PatchKind::Merge, &patch).await)? {
                Some(written) if written.metadata.deletion_timestamp.is_none() || !list.is_empty() => {
                    shared.volumes.observe(&written);
                }
                Some(_) | None => shared.volumes.observe_gone(key, volume.metadata.uid.as_deref()),
            }
            return Ok(None);
        }
        let claim = self.claim(&volume).await?;
        for action in storage::decide_volume(&volume, claim.as_ref()) {
            match action {
                VolumeAction::Status(status) => {
                    let newest = shared.volumes.get_key(key).unwrap_or_else(|| volume.clone());
                    let changed = PersistentVolume { status: Some(*status), ..PersistentVolume::clone(&newest) };
                    shared.volumes.observe(&api.update_status(&changed).await?);
                }
                VolumeAction::Delete => {
                    or_gone(api.delete(&key.name, &DeleteOptions::of(&volume.metadata)).await)?;
                }
                VolumeAction::Event { reason, message } => {
                    shared.context.events.event(&reference(&*volume), Severity::Warning, reason, message);
                }
            }
        }
        Ok(None)
    }
}

impl Volumes {
    /// The claim that the volume names: from the cache, and when it is not there, from the server.
    async fn claim(&self, volume: &PersistentVolume) -> Result<Option<PersistentVolumeClaim>, ClientError> {
        let Some(named) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else { return Ok(None) };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (namespace, name) = (text(&named.namespace), text(&named.name));
        let cached = self.0.context.caches.claims.get(&namespace, &name);
        if let Some(claim) = cached.filter(|c| c.metadata.uid == named.uid) {
            return Ok(Some(PersistentVolumeClaim::clone(&claim)));
        }
        self.0.context.client.api::<PersistentVolumeClaim>().namespace(namespace).get_opt(&name).await
    }
}

impl Reconcile for Ephemeral {
    const NAME: &'static str = "ephemeral-volume";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let context = &self.0.context;
        let Some(pod) = context.caches.pods.get_key(key) else { return Ok(None) };
        let existing = |name: &str| context.caches.claims.get(&key.namespace, name).map(|c| c.metadata.clone());
        match storage::missing_claims(&pod, existing) {
            Err(why) => context.events.event(&reference(&*pod), Severity::Warning, "FailedMount", why),
            Ok(claims) => {
                for claim in claims {
                    match context.client.api::<PersistentVolumeClaim>().create(&claim).await {
                        Ok(made) => context.caches.claims.observe(&made),
                        Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(None)
    }
}
