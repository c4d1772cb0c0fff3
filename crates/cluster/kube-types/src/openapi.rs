//! The OpenAPI documents.
use serde_json::Value;

/// Body of `GET /openapi/v3`: `{"paths": {"apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=…"}}}`.
pub fn v3_index() -> Value {
    todo!()
}

/// Body of `GET /openapi/v3/apis/<group>/<version>` (`api/v1` for the core group); `None` if nothing is served there.
pub fn v3_document(group: &str, version: &str) -> Option<Value> {
    let _ = (group, version);
    todo!()
}

/// Body of `GET /openapi/v2`.
pub fn v2() -> Value {
    todo!()
}
