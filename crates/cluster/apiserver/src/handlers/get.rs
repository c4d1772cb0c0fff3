//! GET of one object (and of its `status`, which is the same object).

use http::StatusCode;
use kube_types::status;
use store::KeyValue;

use crate::call::{Call, Target};
use crate::error::{ApiResult, too_large_version};
use crate::respond::Reply;

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let wanted = call.query.text("resourceVersion").and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
    let current = call.server.store.revision();
    if wanted > current {
        return Err(too_large_version(wanted, current));
    }
    let found = find(call, target)?;
    super::one(call, target, StatusCode::OK, &found.value).await
}

/// The stored object, or 404 in Kubernetes' words.
pub(crate) fn find(call: &Call, target: &Target) -> ApiResult<KeyValue> {
    call.server.store.get(&target.key()).ok_or_else(|| status::not_found(&target.resource, &target.name).into())
}
