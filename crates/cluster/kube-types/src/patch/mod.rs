//! The three patch formats that change a document by what the client sends: JSON patch, merge patch, strategic merge patch.
//!
//! Called by the API server on the live object; the result goes through [`crate::strict::prune`], defaulting and validation
//! like any other write. Invariant: the result is bounded by document plus patch, whatever the patch says.

mod json;
mod strategic;

use serde_json::{Map, Value};

pub use json::json;
pub use strategic::strategic;

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

/// RFC 7386. The patch must be an object, since the document stays one.
pub fn merge(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(
            "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}".to_owned(),
        ));
    }
    let mut merged = document.clone();
    merge_into(&mut merged, patch);
    Ok(merged)
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge_into(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests;
