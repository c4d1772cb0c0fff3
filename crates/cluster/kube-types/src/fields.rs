//! Fields that a field selector may name.
use crate::registry::Resource;
use serde_json::Value;
use std::collections::BTreeMap;

/// Label → value for every field that this resource lets a field selector name.
pub fn selectable(resource: &Resource, object: &Value) -> BTreeMap<&'static str, String> {
    let _ = (resource, object);
    todo!()
}

/// Whether a field selector on this resource may name `field`; if not, the request is a 400 `field label not supported: X`.
pub fn is_selectable(resource: &Resource, field: &str) -> bool {
    let _ = (resource, field);
    todo!()
}
