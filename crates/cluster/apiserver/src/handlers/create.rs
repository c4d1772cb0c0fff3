//! POST of a new object.

use http::StatusCode;

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::respond::Reply;
use crate::{metadata, write};

pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let object = call.decode_body(&target.resource)?;
    metadata::check_path(target, &object)?;
    let options = call.write_options()?;
    let written = write::create(call, target, &object, &options, false).await?;
    super::one(call, target, StatusCode::CREATED, &written.stored).await
}
