//! Which resources are served right now: the built-in ones of `kube_types::registry`.
//!
//! Every part of this crate looks resources up here and nowhere else, so that kinds that come at run time need one place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube_types::{Resource, registry};

pub(crate) struct Served {
    in_order: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), Arc<Resource>>,
}

impl Served {
    pub(crate) fn builtin() -> Self {
        let in_order: Vec<Arc<Resource>> = registry::all().iter().cloned().map(Arc::new).collect();
        let by_path = in_order
            .iter()
            .map(|resource| {
                let key = (resource.group.to_string(), resource.version.to_string(), resource.plural.to_string());
                (key, Arc::clone(resource))
            })
            .collect();
        Self { in_order, by_path }
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.in_order
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// Groups in discovery's order, each with its versions in order of preference.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut order: Vec<(String, Vec<String>)> = Vec::new();
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        for resource in &self.in_order {
            let index = *at.entry(resource.group.to_string()).or_insert_with(|| {
                order.push((resource.group.to_string(), Vec::new()));
                order.len() - 1
            });
            let versions = &mut order[index].1;
            if !versions.iter().any(|version| *version == resource.version) {
                versions.push(resource.version.to_string());
            }
        }
        order
    }

    pub(crate) fn in_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.in_order.iter().filter(move |resource| resource.group == group && resource.version == version)
    }
}
