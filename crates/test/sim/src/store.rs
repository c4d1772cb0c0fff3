//! The API server and store of a run: revisions, preconditions, graceful deletion, finalizers; and the log that watches
//! are fed from.
//!
//! Invariants: a write with an old version is refused; an acknowledged write is in the log; a pod with a node goes only
//! when its node says so, or is gone.

use crate::checks;
use crate::objects::{Key, Kind, Object, Typed};
use controllers::pods;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Conflict,
    Exists,
    Missing,
    /// A disruption budget forbids it.
    Budget,
}

/// One entry of the log; without an object it is a deletion.
#[derive(Clone)]
pub(crate) struct Logged {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) object: Option<Object>,
}

#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Object>,
    pub(crate) log: Vec<Logged>,
    version: u64,
    names: u64,
    pub(crate) now: Timestamp,
    pub(crate) violations: Vec<String>,
}

/// Which part of the object a write is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.range((kind, String::new())..).take_while(move |((k, _), _)| *k == kind).map(|(_, o)| o)
    }

    pub(crate) fn typed<K: Typed>(&self) -> Vec<Arc<K>> {
        self.of_kind(K::KIND_OF).filter_map(|o| K::unwrap(o)).collect()
    }

    fn put(&mut self, mut object: Object) -> Object {
        self.version += 1;
        object.meta_mut().resource_version = Some(self.version.to_string());
        self.log.push(Logged { version: self.version, key: object.key(), object: Some(object.clone()) });
        self.objects.insert(object.key(), object.clone());
        checks::after_write(self, &object);
        object
    }

    fn erase(&mut self, key: &Key) {
        if self.objects.remove(key).is_some() {
            self.version += 1;
            self.log.push(Logged { version: self.version, key: key.clone(), object: None });
        }
    }

    pub(crate) fn create(&mut self, mut object: Object) -> Result<Object, Refused> {
        self.names += 1;
        let number = self.names;
        let now = Time(self.now);
        let meta = object.meta_mut();
        if meta.name.is_none() {
            meta.name = Some(format!("{}{number}", meta.generate_name.as_deref().unwrap_or_default()));
        }
        meta.uid = Some(format!("uid-{number}"));
        meta.generation = Some(1);
        meta.creation_timestamp = Some(now);
        if self.objects.contains_key(&object.key()) {
            return Err(Refused::Exists);
        }
        Ok(self.put(object))
    }

    /// Writes the part, if the version is still the one that was seen.
    pub(crate) fn update(&mut self, object: Object, part: Part) -> Result<Object, Refused> {
        let old = self.objects.get(&object.key()).ok_or(Refused::Missing)?;
        if old.version() != object.version() || old.uid() != object.uid() {
            return Err(Refused::Conflict);
        }
        let merged = merge(old, object, part);
        if merged == *old {
            return Ok(merged);
        }
        let gone = is_let_go(&merged);
        let stored = self.put(merged);
        if gone {
            self.erase(&stored.key());
        }
        Ok(stored)
    }

    pub(crate) fn delete(&mut self, key: &Key, uid: &str) -> Result<(), Refused> {
        let object = self.objects.get(key).filter(|o| o.uid() == uid).ok_or(Refused::Missing)?.clone();
        let waits = match &object {
            Object::Pod(pod) => pods::node_name(pod).is_some() && !pods::is_finished(pod),
            _ => false,
        };
        let held = object.meta().finalizers.as_ref().is_some_and(|f| !f.is_empty());
        if !waits && !held {
            self.erase(key);
        } else if object.meta().deletion_timestamp.is_none() {
            let mut going = object;
            going.meta_mut().deletion_timestamp = Some(Time(self.now));
            self.put(going);
        }
        Ok(())
    }

    /// The node has let its pod go (or is gone itself): what is left ends, and goes unless it is held.
    pub(crate) fn finish(&mut self, pod: &Pod) {
        let key = (Kind::Pod, pod.metadata.name.clone().unwrap_or_default());
        let Some(Object::Pod(stored)) = self.objects.get(&key).filter(|o| Some(o.uid()) == pod.metadata.uid.as_deref())
        else {
            return;
        };
        let mut ended = Pod::clone(stored);
        if !pods::is_finished(&ended) {
            ended.status.get_or_insert_default().phase = Some("Failed".into());
        }
        ended.metadata.deletion_timestamp.get_or_insert(Time(self.now));
        let held = ended.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
        self.put(ended.wrap());
        if !held {
            self.erase(&key);
        }
    }

    /// The binding subresource: a pod that has a node never gets another.
    pub(crate) fn bind(&mut self, key: &Key, uid: &str, node: &str) -> Result<Object, Refused> {
        let Some(Object::Pod(pod)) = self.objects.get(key).filter(|o| o.uid() == uid) else {
            return Err(Refused::Missing);
        };
        if pods::node_name(pod).is_some() || pod.metadata.deletion_timestamp.is_some() {
            return Err(Refused::Conflict);
        }
        let mut bound = Pod::clone(pod);
        bound.spec.get_or_insert_default().node_name = Some(node.to_owned());
        Ok(self.put(bound.wrap()))
    }

    /// The eviction subresource.
    pub(crate) fn evict(&mut self, pod: &Pod) -> Result<(), Refused> {
        let key = (Kind::Pod, pod.metadata.name.clone().unwrap_or_default());
        let Some(Object::Pod(stored)) = self.objects.get(&key).cloned() else { return Err(Refused::Missing) };
        if stored.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        for budget in self.typed::<k8s_openapi::api::policy::v1::PodDisruptionBudget>() {
            if controllers::disruption::covered(&budget, std::slice::from_ref(&stored)).is_empty() {
                continue;
            }
            let mut changed = (*budget).clone();
            let status = changed.status.get_or_insert_default();
            if status.disruptions_allowed.unwrap_or(0) <= 0 || status.observed_generation != budget.metadata.generation
            {
                return Err(Refused::Budget);
            }
            status.disruptions_allowed = status.disruptions_allowed.map(|n| n - 1);
            status.disrupted_pods.get_or_insert_default().insert(key.1.clone(), Time(self.now));
            self.put(changed.wrap());
        }
        self.delete(&key, stored.metadata.uid.as_deref().unwrap_or_default())?;
        checks::after_eviction(self, &stored);
        Ok(())
    }
}

/// A pod that ended, or never began, and lost its last hold.
fn is_let_go(object: &Object) -> bool {
    let meta = object.meta();
    let held = meta.finalizers.as_ref().is_some_and(|f| !f.is_empty());
    let at_rest = match object {
        Object::Pod(pod) => pods::is_finished(pod) || pods::node_name(pod).is_none(),
        _ => true,
    };
    meta.deletion_timestamp.is_some() && !held && at_rest
}

macro_rules! merge_status {
    ($old:ident, $new:ident, $part:ident, $($kind:ident),+) => {
        match ($old, $new) {
            $((Object::$kind(old), Object::$kind(new)) => {
                let (mut kept, mut given) = ((**old).clone(), (*new).clone());
                if $part == Part::Status {
                    kept.status = given.status;
                    Object::$kind(Arc::new(kept))
                } else {
                    given.status = kept.status;
                    if given.spec != kept.spec {
                        given.metadata.generation = Some(kept.metadata.generation.unwrap_or(1) + 1);
                    }
                    given.metadata.deletion_timestamp = kept.metadata.deletion_timestamp;
                    Object::$kind(Arc::new(given))
                }
            })+
            (_, new) => new,
        }
    };
}

fn merge(old: &Object, new: Object, part: Part) -> Object {
    merge_status!(
        old,
        new,
        part,
        Node,
        Pod,
        ReplicaSet,
        Deployment,
        StatefulSet,
        DaemonSet,
        PersistentVolumeClaim,
        Job,
        PodDisruptionBudget
    )
}
