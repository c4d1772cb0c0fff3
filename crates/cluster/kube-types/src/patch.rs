//! The three client-side patch formats.
use crate::registry::Resource;
use serde_json::Value;

/// `Display` is the message of the status. See [`PatchError::code`].
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The patch document itself cannot be read (400).
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object (422; a failed JSON-patch `test` is one of these).
    #[error("{0}")]
    Unprocessable(String),
    /// Over a limit (413).
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    /// HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Unprocessable(_) => 422,
            Self::TooLarge(_) => 413,
        }
    }
}

/// RFC 6902.
pub fn json(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = (document, patch);
    todo!()
}

/// RFC 7386.
pub fn merge(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let _ = (document, patch);
    todo!()
}

/// Kubernetes' strategic merge patch.
pub fn strategic(
    resource: &Resource,
    document: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let _ = (resource, document, patch);
    todo!()
}
