//! Bytes → Value with Kubernetes' field validation.
use crate::registry::Resource;
use serde_json::Value;

/// The body is not an object of that kind. `Display` is the text of the BadRequest status.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0}")]
    Syntax(String),
    #[error("{0}")]
    Type(String),
    #[error("{0}")]
    Limit(String),
}

/// Decodes JSON. Unknown and duplicate fields are dropped (the last duplicate wins) and reported as
/// Kubernetes words them: `unknown field "spec.foo"`, `duplicate field "spec.replicas"`.
/// The caller acts on them by its `fieldValidation` (Strict: 400 with `strict decoding error: a, b`; Warn: warnings; Ignore).
pub fn decode(resource: &Resource, body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let _ = (resource, body);
    todo!()
}

/// The same for a YAML body (`application/yaml`, `application/apply-patch+yaml`); JSON is YAML too.
pub fn decode_yaml(resource: &Resource, body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let _ = (resource, body);
    todo!()
}

/// The check alone, for a value that came another way (a patch's result). Drops unknown fields.
pub fn prune(resource: &Resource, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    let _ = (resource, object);
    todo!()
}
