//! ConfigMaps, Secrets and Services that pods refer to.
//!
//! Each referenced object is followed by a cache of its own (`metadata.name=` selector), shared by the pods
//! that name it, so the node reads only what its pods use. Invariant: a pod holds its references as long as
//! it lives; when one changes, every pod that holds it is told through [`References::changes`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube_client::{
    Client, Object,
    informer::{Cache, ObjectKey, Scope},
};
use tokio::sync::broadcast;

/// How long a first read may take before the object counts as missing.
const FIRST_READ: Duration = Duration::from_secs(5);

/// One followed object.
pub(crate) struct Tracked<K: Object> {
    key: ObjectKey,
    cache: Cache<K>,
    follower: tokio::task::JoinHandle<()>,
}

impl<K: Object> Tracked<K> {
    fn start(client: &Client, key: ObjectKey, changed: broadcast::Sender<ObjectKey>) -> Self {
        let scope = Scope {
            namespace: Some(key.namespace.clone()),
            fields: Some(format!("metadata.name={}", key.name)),
            ..Scope::default()
        };
        let cache = Cache::start(client, scope);
        let mut changes = cache.changes();
        let told = key.clone();
        let follower = tokio::spawn(async move {
            while changes.next().await.is_some() {
                // Nobody listening is fine: the next pass reads the cache.
                let _ = changed.send(told.clone());
            }
        });
        Self { key, cache, follower }
    }

    /// The object, waiting for the first read.
    pub(crate) async fn get(&self) -> Option<Arc<K>> {
        let _ = tokio::time::timeout(FIRST_READ, self.cache.synced()).await;
        self.cache.get(&self.key.namespace, &self.key.name)
    }
}

impl<K: Object> Drop for Tracked<K> {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

type Table<K> = Mutex<HashMap<(String, String), Weak<Tracked<K>>>>;

/// All followed objects of the node.
pub(crate) struct References {
    client: Client,
    config_maps: Table<ConfigMap>,
    secrets: Table<Secret>,
    changed: broadcast::Sender<ObjectKey>,
}

impl References {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default(), changed: broadcast::channel(256).0 }
    }

    pub(crate) fn changes(&self) -> broadcast::Receiver<ObjectKey> {
        self.changed.subscribe()
    }

    fn follow<K: Object>(&self, table: &Table<K>, namespace: &str, name: &str) -> Arc<Tracked<K>> {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (namespace.to_owned(), name.to_owned());
        if let Some(known) = table.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        table.retain(|_, one| one.strong_count() > 0);
        let key = ObjectKey { namespace: id.0.clone(), name: id.1.clone() };
        let tracked = Arc::new(Tracked::start(&self.client, key, self.changed.clone()));
        table.insert(id, Arc::downgrade(&tracked));
        tracked
    }
}

/// The references that one pod holds.
pub(crate) struct Held {
    all: Arc<References>,
    namespace: String,
    config_maps: Mutex<HashMap<String, Arc<Tracked<ConfigMap>>>>,
    secrets: Mutex<HashMap<String, Arc<Tracked<Secret>>>>,
}

impl Held {
    pub(crate) fn new(all: Arc<References>, namespace: String) -> Self {
        Self { all, namespace, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// Whether a changed object is one of these.
    pub(crate) fn concerns(&self, key: &ObjectKey) -> bool {
        let held = |name: &String| {
            let maps = self.config_maps.lock().unwrap_or_else(PoisonError::into_inner);
            let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            maps.contains_key(name) || secrets.contains_key(name)
        };
        key.namespace == self.namespace && held(&key.name)
    }

    pub(crate) async fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let tracked = {
            let mut held = self.config_maps.lock().unwrap_or_else(PoisonError::into_inner);
            held.entry(name.to_owned())
                .or_insert_with(|| self.all.follow(&self.all.config_maps, &self.namespace, name))
                .clone()
        };
        tracked.get().await
    }

    pub(crate) async fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        let tracked = {
            let mut held = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            held.entry(name.to_owned())
                .or_insert_with(|| self.all.follow(&self.all.secrets, &self.namespace, name))
                .clone()
        };
        tracked.get().await
    }
}
