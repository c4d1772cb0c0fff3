//! PUT of an object or of one of its subresources that has the object's own shape (`status`, `finalize`, `approval`, …).

use http::StatusCode;
use kube_types::lifecycle::Subresource;
use serde_json::Value;

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::respond::Reply;
use crate::write::{self, Change};

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let object = call.decode_body(&target.resource)?;
    crate::metadata::check_path(target, &object)?;
    let options = call.write_options()?;
    let change = |_old: &Value| Ok(object.clone());
    let change =
        Change { subresource: Subresource::from_path(&target.subresource), record_manager: true, change: &change };
    let written = write::update(call, target, &options, &change).await?;
    super::one(call, target, StatusCode::OK, &written.stored).await
}
