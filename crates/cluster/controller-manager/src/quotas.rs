//! The ResourceQuota shell: keeps `status.used`. What admission has counted in advance is put right here.
//!
//! Kinds that no shared cache holds are counted by asking the server, as often as Kubernetes does (5 minutes).

use crate::Context;
use crate::discovery;
use crate::runner::{Outcome, Queue, Reconcile, feed, own_key, run};
use controllers::quota::{self, View};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube_client::informer::{Cache, Change, ObjectKey, Scope};
use kube_client::{ClientError, Object};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

const RESYNC: SignedDuration = SignedDuration::from_secs(300);

struct Quotas {
    context: Arc<Context>,
    cache: Cache<ResourceQuota>,
}

pub(crate) fn spawn(context: &Arc<Context>, tasks: &mut JoinSet<()>) {
    let queue = Queue::default();
    let cache: Cache<ResourceQuota> = Cache::start(&context.client, Scope::default());
    feed(tasks, &cache, &queue, own_key);
    follow(tasks, &context.caches.pods, &cache, &queue);
    follow(tasks, &context.caches.services, &cache, &queue);
    follow(tasks, &context.caches.claims, &cache, &queue);
    run(tasks, context, &queue, Quotas { context: context.clone(), cache }, 1);
}

/// What comes, goes or ends changes the use of its namespace.
fn follow<K: Object>(tasks: &mut JoinSet<()>, of: &Cache<K>, quotas: &Cache<ResourceQuota>, queue: &Queue) {
    let quotas = quotas.clone();
    feed(tasks, of, queue, move |change: &Change<K>| {
        let namespace = change.object().metadata().namespace.as_deref().unwrap_or_default();
        quotas.list_namespace(namespace).iter().map(|q| ObjectKey::of(&q.metadata)).collect()
    });
}

impl Reconcile for Quotas {
    const NAME: &'static str = "resourcequota";

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        self.cache.synced().await;
        let Some(quota) = self.cache.get_key(key).filter(|q| q.metadata.deletion_timestamp.is_none()) else {
            return Ok(None);
        };
        let mut counts = BTreeMap::new();
        for name in quota::counted_elsewhere(&quota) {
            counts.insert(name.clone(), self.count(&key.namespace, &name).await?);
        }
        let caches = &self.context.caches;
        let view = View {
            quota: &quota,
            pods: &caches.pods.list_namespace(&key.namespace),
            services: &caches.services.list_namespace(&key.namespace),
            claims: &caches.claims.list_namespace(&key.namespace),
            counts: &counts,
        };
        let status = quota::decide(&view);
        if quota.status.as_ref() != Some(&status) {
            let changed = ResourceQuota { status: Some(status), ..ResourceQuota::clone(&quota) };
            let written = self.context.client.api::<ResourceQuota>().update_status(&changed).await?;
            self.cache.observe(&written);
        }
        Ok((!counts.is_empty()).then(|| Timestamp::now() + RESYNC))
    }
}

impl Quotas {
    /// How many objects of `configmaps` or `count/jobs.batch` there are: one is fetched, the rest only counted.
    async fn count(&self, namespace: &str, name: &str) -> Result<i64, ClientError> {
        let resource = name.strip_prefix("count/").unwrap_or(name);
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let version = if group.is_empty() { "v1".to_owned() } else { self.preferred(group).await? };
        if version.is_empty() {
            return Ok(0);
        }
        let root = if group.is_empty() { "api" } else { "apis" };
        let path = format!("/{root}/{version}/namespaces/{namespace}/{plural}?limit=1");
        match self.context.client.raw(discovery::get(&path)?).await {
            Ok(list) => {
                let first = list["items"].as_array().map_or(0, Vec::len);
                let rest = list["metadata"]["remainingItemCount"].as_i64().unwrap_or(0);
                Ok(i64::try_from(first).unwrap_or(0) + rest)
            }
            Err(error) if error.is_not_found() => Ok(0),
            Err(error) => Err(error),
        }
    }

    async fn preferred(&self, group: &str) -> Result<String, ClientError> {
        let groups = self.context.client.raw(discovery::get("/apis")?).await?;
        let found = groups["groups"].as_array().into_iter().flatten().find(|g| g["name"] == group);
        Ok(found.and_then(|g| g["preferredVersion"]["groupVersion"].as_str()).unwrap_or_default().to_owned())
    }
}
