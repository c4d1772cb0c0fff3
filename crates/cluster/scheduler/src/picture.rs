//! Keeps the picture of the cluster in step with the caches, and says which kind of change each event was.
//!
//! Invariant: every event is taken in exactly once and in order, so the picture is what the caches say plus what was
//! assumed.

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube_client::informer::{Cache, Change, Changes, ObjectKey, Scope};
use kube_client::{Client, Object};
use scheduling::Snapshot;
use scheduling::causes::Causes;
use std::sync::Arc;

/// What placement looks at besides pods and nodes.
pub(crate) struct Surroundings {
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) claims: Cache<PersistentVolumeClaim>,
    pub(crate) volumes: Cache<PersistentVolume>,
    pub(crate) classes: Cache<StorageClass>,
    pub(crate) budgets: Cache<PodDisruptionBudget>,
}

/// Their changes.
pub(crate) struct Streams {
    namespaces: Changes<Namespace>,
    claims: Changes<PersistentVolumeClaim>,
    volumes: Changes<PersistentVolume>,
    classes: Changes<StorageClass>,
    budgets: Changes<PodDisruptionBudget>,
}

impl Surroundings {
    pub(crate) fn start(client: &Client) -> Self {
        Surroundings {
            namespaces: Cache::start(client, Scope::default()),
            claims: Cache::start(client, Scope::default()),
            volumes: Cache::start(client, Scope::default()),
            classes: Cache::start(client, Scope::default()),
            budgets: Cache::start(client, Scope::default()),
        }
    }

    pub(crate) async fn synced(&self) {
        self.namespaces.synced().await;
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.budgets.synced().await;
    }

    pub(crate) fn changes(&self) -> Streams {
        Streams {
            namespaces: self.namespaces.changes(),
            claims: self.claims.changes(),
            volumes: self.volumes.changes(),
            classes: self.classes.changes(),
            budgets: self.budgets.changes(),
        }
    }

    pub(crate) fn set_budgets(&self, snapshot: &mut Snapshot) {
        snapshot.budgets = self.budgets.list();
    }
}

/// One change, taken from whichever stream had one first.
pub(crate) enum Event {
    Namespace(Change<Namespace>),
    Claim(Change<PersistentVolumeClaim>),
    Volume(Change<PersistentVolume>),
    Class(Change<StorageClass>),
    Budget,
}

impl Streams {
    /// None: the caches are gone.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            change = self.namespaces.next() => change.map(Event::Namespace),
            change = self.claims.next() => change.map(Event::Claim),
            change = self.volumes.next() => change.map(Event::Volume),
            change = self.classes.next() => change.map(Event::Class),
            change = self.budgets.next() => change.map(|_| Event::Budget),
        }
    }

    pub(crate) fn try_next(&mut self) -> Option<Event> {
        let event = self.namespaces.try_next().map(Event::Namespace);
        let event = event.or_else(|| self.claims.try_next().map(Event::Claim));
        let event = event.or_else(|| self.volumes.try_next().map(Event::Volume));
        let event = event.or_else(|| self.classes.try_next().map(Event::Class));
        event.or_else(|| self.budgets.try_next().map(|_| Event::Budget))
    }
}

fn key<K: Object>(object: &K) -> String {
    ObjectKey::of(object.metadata()).to_string()
}

/// What is there after the change.
fn there<K: Object>(change: &Change<K>) -> Option<&Arc<K>> {
    match change {
        Change::Applied { new, .. } => Some(new),
        Change::Deleted { .. } => None,
    }
}

/// Takes the change into the picture; says what kind it was.
pub(crate) fn take_in(snapshot: &mut Snapshot, event: &Event) -> Causes {
    fn put<K: Object>(map: &mut std::collections::HashMap<String, Arc<K>>, change: &Change<K>) {
        let key = key(&**change.object());
        match there(change) {
            Some(new) => map.insert(key, new.clone()),
            None => map.remove(&key),
        };
    }
    match event {
        Event::Namespace(change) => {
            let labels = there(change).map(|ns| ns.metadata.labels.clone().unwrap_or_default());
            snapshot.set_namespace(&key(&**change.object()), labels);
            Causes::NEIGHBOURS
        }
        Event::Claim(change) => {
            put(&mut snapshot.volumes.claims, change);
            Causes::VOLUMES
        }
        Event::Volume(change) => {
            put(&mut snapshot.volumes.volumes, change);
            Causes::VOLUMES
        }
        Event::Class(change) => {
            put(&mut snapshot.volumes.classes, change);
            Causes::VOLUMES
        }
        Event::Budget => Causes::NONE,
    }
}

/// Takes a node's change into the picture; a heartbeat is no change.
pub(crate) fn take_in_node(snapshot: &mut Snapshot, change: &Change<Node>) -> Causes {
    match change {
        Change::Deleted { last } => {
            snapshot.remove_node(last.metadata.name.as_deref().unwrap_or_default());
            Causes::NEIGHBOURS
        }
        Change::Applied { old, new } => {
            snapshot.set_node(new.clone());
            let Some(old) = old else { return Causes::ANY };
            let room = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
            let looks = old.spec != new.spec || old.metadata.labels != new.metadata.labels;
            let looks = if looks { Causes::ANY } else { Causes::NONE };
            if room(old) == room(new) { looks } else { looks.and(Causes::ROOM) }
        }
    }
}
