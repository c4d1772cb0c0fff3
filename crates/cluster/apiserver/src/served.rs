//! Which resources are served right now: the built-in ones of `kube_types::registry`, and those of accepted
//! CustomResourceDefinitions.
//!
//! Every part of this crate looks resources up here and nowhere else. The custom ones are one immutable [`Custom`] that
//! `extension::definitions` replaces as a whole; a request that holds a resource keeps it to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kube_types::custom::names::compare_versions;
use kube_types::{Resource, registry};

use crate::extension::definitions::Kind;

type Path = (String, String, String);

pub(crate) struct Served {
    in_order: Vec<Arc<Resource>>,
    by_path: HashMap<Path, Arc<Resource>>,
    custom: RwLock<Arc<Custom>>,
}

/// All custom resources at one moment.
#[derive(Default)]
pub(crate) struct Custom {
    by_path: HashMap<Path, (Arc<Resource>, Arc<Kind>)>,
    /// By group, in order of preference of the versions.
    in_order: Vec<Arc<Resource>>,
    /// The revision of the newest definition of each group and version: it changes when their documents do.
    pub(crate) stamps: BTreeMap<(String, String), u64>,
}

impl Custom {
    pub(crate) fn new(kinds: impl Iterator<Item = Arc<Kind>>) -> Self {
        let mut all = Self::default();
        for kind in kinds {
            for resource in &kind.resources {
                let version = (resource.group.to_string(), resource.version.to_string());
                let stamp = all.stamps.entry(version.clone()).or_default();
                *stamp = (*stamp).max(kind.revision);
                all.by_path.insert(
                    (version.0, version.1, resource.plural.to_string()),
                    (Arc::clone(resource), Arc::clone(&kind)),
                );
                all.in_order.push(Arc::clone(resource));
            }
        }
        all.in_order.sort_by(|a, b| {
            (a.group.cmp(&b.group))
                .then_with(|| compare_versions(&a.version, &b.version))
                .then_with(|| a.plural.cmp(&b.plural))
        });
        all
    }

    pub(crate) fn resources(&self) -> &[Arc<Resource>] {
        &self.in_order
    }
}

fn path(group: &str, version: &str, plural: &str) -> Path {
    (group.to_owned(), version.to_owned(), plural.to_owned())
}

impl Served {
    pub(crate) fn builtin() -> Self {
        let in_order: Vec<Arc<Resource>> = registry::all().iter().cloned().map(Arc::new).collect();
        let by_path = in_order
            .iter()
            .map(|resource| (path(&resource.group, &resource.version, &resource.plural), Arc::clone(resource)))
            .collect();
        Self { in_order, by_path, custom: RwLock::default() }
    }

    pub(crate) fn custom(&self) -> Arc<Custom> {
        Arc::clone(&self.custom.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace_custom(&self, custom: Custom) {
        *self.custom.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(custom);
    }

    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.in_order
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let path = path(group, version, plural);
        self.by_path.get(&path).cloned().or_else(|| self.custom().by_path.get(&path).map(|(found, _)| Arc::clone(found)))
    }

    /// The definition behind a custom resource; `None` for a built-in one.
    pub(crate) fn kind_of(&self, resource: &Resource) -> Option<Arc<Kind>> {
        resource.custom()?;
        let path = path(&resource.group, &resource.version, &resource.plural);
        self.custom().by_path.get(&path).map(|(_, kind)| Arc::clone(kind))
    }

    /// Any served version of a resource, the preferred one first.
    pub(crate) fn preferred(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        let is_it = |resource: &&Arc<Resource>| resource.group == group && resource.plural == plural;
        self.in_order.iter().find(is_it).cloned().or_else(|| self.custom().in_order.iter().find(is_it).cloned())
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let is_it = |resource: &&Arc<Resource>| resource.kind == kind && resource.api_version() == api_version;
        self.in_order.iter().find(is_it).cloned().or_else(|| self.custom().in_order.iter().find(is_it).cloned())
    }

    /// Groups in discovery's order, each with its versions in order of preference.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut order: Vec<(String, Vec<String>)> = Vec::new();
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        for resource in self.in_order.iter().chain(self.custom().resources()) {
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

    pub(crate) fn in_version(&self, group: &str, version: &str) -> Vec<Arc<Resource>> {
        let is_in = |resource: &&Arc<Resource>| resource.group == group && resource.version == version;
        let custom = self.custom();
        self.in_order.iter().chain(custom.resources()).filter(is_in).cloned().collect()
    }
}
