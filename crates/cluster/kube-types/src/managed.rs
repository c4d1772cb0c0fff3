//! Server-side apply and managedFields.
use crate::lifecycle::Subresource;
use crate::registry::Resource;
use jiff::Timestamp;
use serde_json::Value;

/// One field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: String,
    pub api_version: String,
    pub subresource: String,
    /// `.spec.replicas`
    pub field: String,
    /// `conflict with "x" using apps/v1`, the message of the status cause.
    pub message: String,
}

/// `Display` is the message of the Conflict status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// 409, see [`crate::status::apply_conflict`].
    #[error("{0}")]
    Conflicts(Conflicts),
    /// 400: the configuration cannot be merged (duplicate list keys, missing keys, managedFields set …).
    #[error("{0}")]
    Invalid(String),
}

impl std::fmt::Display for Conflicts {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// Server-side apply. `live` is `None` when the object is to be created.
/// Returns the merged object with its managedFields; the caller defaults, validates and stores it.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
    subresource: Subresource<'_>,
    now: Timestamp,
) -> Result<Value, ApplyError> {
    let _ = (resource, live, config, manager, force, subresource, now);
    todo!()
}

/// managedFields of a create (`old` is `None`), update or patch. Call it last, just before storing.
pub fn record_update(
    resource: &Resource,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: Subresource<'_>,
    now: Timestamp,
) {
    let _ = (resource, old, new, manager, subresource, now);
    todo!()
}
