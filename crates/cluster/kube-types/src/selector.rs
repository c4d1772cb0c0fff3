//! Label and field selectors.
use std::collections::BTreeMap;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// A parsed label selector; all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {}

impl LabelSelector {
    /// Query syntax: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        todo!()
    }
    /// From `metav1.LabelSelector`; an absent selector matches nothing, an empty one everything.
    pub fn from_typed(
        selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    ) -> Result<Self, SelectorError> {
        let _ = selector;
        todo!()
    }
    /// From the JSON form of `metav1.LabelSelector`.
    pub fn from_value(selector: &serde_json::Value) -> Result<Self, SelectorError> {
        let _ = selector;
        todo!()
    }
    /// From a plain map (Service and ReplicationController selectors).
    pub fn from_map<'a>(map: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let _ = map.into_iter();
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// `get` looks a label up.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let _ = get;
        todo!()
    }
    pub fn matches_map(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }
    /// On an object's `metadata.labels`.
    pub fn matches_object(&self, object: &serde_json::Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.matches(|key| labels.get(key).and_then(|v| v.as_str()))
    }
}

/// A parsed field selector: `a=b,c==d,e!=f`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// The names it uses, to be checked with [`crate::fields::is_selectable`].
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
    /// The value a field must equal, if the selector pins it (`metadata.name=x` lets a list become a get).
    pub fn required_value(&self, field: &str) -> Option<&str> {
        let _ = field;
        todo!()
    }
    pub fn matches(&self, fields: &BTreeMap<&'static str, String>) -> bool {
        let _ = fields;
        todo!()
    }
}
