//! Which resources the server serves.
use std::borrow::Cow;

pub type Text = Cow<'static, str>;

/// A served resource: discovery's view plus where its schema is. Built-in ones come from [`all`]; the API server makes more of them from CRDs.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub list_kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    /// In discovery's order: create delete deletecollection get list patch update watch (or less).
    pub verbs: Vec<Text>,
    pub subresources: Vec<SubresourceInfo>,
    pub schema: crate::schema::ResourceSchema,
}

/// A served subresource, as discovery lists it.
#[derive(Clone, Debug)]
pub struct SubresourceInfo {
    /// `status`, `scale`, `log`, …
    pub name: Text,
    /// Kind of its body, with group and version when they differ from the parent's (`autoscaling/v1 Scale`).
    pub kind: Text,
    pub group_version: Option<(Text, Text)>,
    pub verbs: Vec<Text>,
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods` for the core group.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.iter().any(|s| s.name == name)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// Every built-in resource, in the order in which discovery lists groups, versions and resources.
pub fn all() -> &'static [Resource] {
    todo!()
}

pub fn find_by_gvr(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    all()
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

pub fn find_by_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    all()
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind)
}
