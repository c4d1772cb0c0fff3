//! Who owns whom, by uid, across all kinds: the memory of garbage collection.
//!
//! Fed from the caches by `garbage`. Invariant: an edge stands here for every owner reference of every known object,
//! whether the owner is known or not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// An object, as far as ownership is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) api_version: Cow<'static, str>,
    pub(crate) kind: Cow<'static, str>,
    pub(crate) meta: ObjectMeta,
}

#[derive(Default)]
pub(crate) struct Graph {
    items: HashMap<String, Item>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(crate) fn get(&self, uid: &str) -> Option<&Item> {
        self.items.get(uid)
    }

    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Item> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.items.get(uid))
    }

    /// Only objects that own, are owned or are held need to be remembered with their edges; the rest costs one entry.
    pub(crate) fn put(&mut self, mut item: Item) {
        item.meta.annotations = None;
        item.meta.labels = None;
        item.meta.managed_fields = None;
        let Some(uid) = item.meta.uid.clone() else {
            return;
        };
        self.unlink(&uid);
        for owner in owners(&item.meta) {
            self.dependents.entry(owner.to_owned()).or_default().insert(uid.clone());
        }
        self.items.insert(uid, item);
    }

    /// Forgets the object; says who depended on it.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<String> {
        self.unlink(uid);
        self.items.remove(uid);
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    fn unlink(&mut self, uid: &str) {
        let Some(old) = self.items.get(uid) else {
            return;
        };
        for owner in owners(&old.meta) {
            if let Some(set) = self.dependents.get_mut(owner) {
                set.remove(uid);
                if set.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }
}

pub(crate) fn owners(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    meta.owner_references.iter().flatten().map(|o| o.uid.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(uid: &str, owners: &[&str]) -> Item {
        let owners: Vec<_> =
            owners.iter().map(|o| json!({"apiVersion": "v1", "kind": "X", "name": o, "uid": o})).collect();
        let meta = serde_json::from_value(json!({"uid": uid, "name": uid, "ownerReferences": owners})).unwrap();
        Item { api_version: "v1".into(), kind: "X".into(), meta }
    }

    #[test]
    fn edges_follow_the_owner_references_even_to_owners_that_are_not_known() {
        let mut graph = Graph::default();
        graph.put(item("child", &["parent"]));
        assert_eq!(graph.dependents("parent").count(), 1);
        graph.put(item("parent", &[]));
        assert_eq!(graph.remove("parent"), ["child"]);
        graph.put(item("child", &["other"]));
        assert_eq!((graph.dependents("parent").count(), graph.dependents("other").count()), (0, 1));
        graph.remove("child");
        assert!(graph.dependents.is_empty() && graph.items.is_empty());
    }
}
