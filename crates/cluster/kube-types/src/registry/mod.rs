//! Which resources the server serves: discovery's table, and where each resource's schema stands.
//!
//! Read by everything that routes, lists or stores. Built-in resources are made once from [`table`]; the API server makes
//! more of them from CRDs. Every stable group and version of Kubernetes v1.36 is here, alpha and beta ones are not.

mod table;

use crate::schema::ResourceSchema;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

pub type Text = Cow<'static, str>;

/// A served resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    /// Empty for what cannot be listed (reviews, bindings).
    pub list_kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    /// In discovery's order: create delete deletecollection get list patch update watch (or less).
    pub verbs: Vec<Text>,
    pub subresources: Vec<SubresourceInfo>,
    pub schema: ResourceSchema,
}

/// A served subresource, as discovery lists it.
#[derive(Clone, Debug)]
pub struct SubresourceInfo {
    /// `status`, `scale`, `log`, …
    pub name: Text,
    /// Kind of its body.
    pub kind: Text,
    /// Group and version of that kind when they are not the resource's own (`autoscaling/v1` Scale).
    pub group_version: Option<(Text, Text)>,
    pub verbs: Vec<Text>,
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, or `pods` for the core group.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn subresource(&self, name: &str) -> Option<&SubresourceInfo> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresource(name).is_some()
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Reviews and bindings are answered, never stored.
    pub fn is_stored(&self) -> bool {
        self.has_verb("get")
    }

    /// `(group, kind)`, by which the parts of this crate choose their rules. Versions of one kind share them.
    pub(crate) fn group_kind(&self) -> (&str, &str) {
        (&self.group, &self.kind)
    }
}

static ALL: LazyLock<Vec<Resource>> = LazyLock::new(table::resources);

/// (group, version, plural or kind) → place in [`ALL`]; the two name spaces cannot clash, for kinds are capitalised.
static INDEX: LazyLock<HashMap<(&str, &str, &str), usize>> = LazyLock::new(|| {
    let entries = ALL.iter().enumerate();
    entries
        .flat_map(|(at, r)| {
            [&r.plural, &r.kind].map(|name| ((r.group.as_ref(), r.version.as_ref(), name.as_ref()), at))
        })
        .collect()
});

/// Every built-in resource, in the order in which discovery lists groups, versions and resources.
pub fn all() -> &'static [Resource] {
    &ALL
}

pub fn find_by_gvr(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    INDEX.get(&(group, version, plural)).map(|at| &ALL[*at]).filter(|r| r.plural == plural)
}

pub fn find_by_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    INDEX.get(&(group, version, kind)).map(|at| &ALL[*at]).filter(|r| r.kind == kind)
}

/// From an object's own `apiVersion` and `kind`.
pub fn find_by_api_version(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    find_by_gvk(group, version, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_by_resource_and_by_kind_meet() {
        for resource in all() {
            let by_plural = find_by_gvr(&resource.group, &resource.version, &resource.plural).unwrap();
            let by_kind = find_by_gvk(&resource.group, &resource.version, &resource.kind).unwrap();
            assert!(std::ptr::eq(by_plural, resource) && std::ptr::eq(by_kind, resource), "{}", resource.kind);
        }
        assert!(find_by_gvr("apps", "v1", "Deployment").is_none());
        assert_eq!(find_by_api_version("apps/v1", "Deployment").unwrap().plural, "deployments");
        assert_eq!(find_by_api_version("v1", "Pod").unwrap().group_resource(), "pods");
    }

    #[test]
    fn short_names_are_kubectls_own() {
        for (group, version, plural, short) in [
            ("", "v1", "pods", "po"),
            ("", "v1", "services", "svc"),
            ("apps", "v1", "deployments", "deploy"),
            ("apps", "v1", "statefulsets", "sts"),
            ("networking.k8s.io", "v1", "networkpolicies", "netpol"),
            ("storage.k8s.io", "v1", "storageclasses", "sc"),
            ("autoscaling", "v2", "horizontalpodautoscalers", "hpa"),
        ] {
            assert!(find_by_gvr(group, version, plural).unwrap().short_names.contains(&short.into()), "{plural}");
        }
    }

    #[test]
    fn reviews_can_only_be_created() {
        let review = find_by_gvr("authorization.k8s.io", "v1", "selfsubjectaccessreviews").unwrap();
        assert_eq!(review.verbs, ["create"]);
        assert!(!review.is_stored());
    }
}
