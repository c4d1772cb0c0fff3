//! RFC 6902 JSON patch, with limits on what one patch may make (CVE-2019-1002100).

use super::PatchError;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// Kubernetes' own limit.
const MAX_OPERATIONS: usize = 10_000;
/// All that `copy` operations may add: a few of them double a document each time.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies the operations in order; the first that does not apply fails the whole patch.
pub fn json(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let Patch(operations) = serde::Deserialize::deserialize(patch)
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    let mut patched = document.clone();
    let mut copied = 0;
    for operation in operations {
        if let PatchOperation::Copy(copy) = &operation {
            let source = patched.pointer(copy.from.as_str());
            copied += source.map_or(0, size_bytes);
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::TooLarge(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
                )));
            }
        }
        let one = std::slice::from_ref(&operation);
        json_patch::patch_unsafe(&mut patched, one).map_err(|e| PatchError::Unprocessable(describe(&operation, &e)))?;
    }
    Ok(patched)
}

fn describe(operation: &PatchOperation, error: &json_patch::PatchError) -> String {
    match operation {
        PatchOperation::Test(test) => format!("testing path {} failed: {}", test.path, error.kind),
        other => format!("{} operation does not apply: {}", verb(other), error.kind),
    }
}

fn verb(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

/// Length as JSON, near enough to bound it.
fn size_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| size_bytes(item) + 1).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(key, item)| key.len() + 4 + size_bytes(item)).sum::<usize>(),
    }
}
