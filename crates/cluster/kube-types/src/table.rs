//! meta.k8s.io/v1 Table.
use crate::registry::Resource;
use jiff::Timestamp;
use serde_json::Value;

/// What stands in each row's `object`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// A `Table` with kubectl's own columns. The caller sets the list's `metadata` (resourceVersion, continue).
pub fn render(
    resource: &Resource,
    objects: &[&Value],
    now: Timestamp,
    include: IncludeObject,
) -> Value {
    let _ = (resource, objects, now, include);
    todo!()
}
