//! `pods/log`: the container's output as plain text, as it comes when it is followed.

use bytes::Bytes;
use futures_util::{StreamExt as _, future};
use jiff::{Timestamp, ToSpan as _};
use kube_client::node::{LogOptions, PodRef};
use kube_types::{status, time};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::respond::{self, Reply};

pub(super) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    let (pod, reference): (_, PodRef) = super::placed_pod(call, target)?;
    let options = options(call, super::container(call, &pod)?)?;
    let output = call.server.nodes()?.logs(reference, options).await?;
    let mut closing = call.server.closing();
    // An error after the first byte can only be told in the text itself, which is what Kubernetes does as well.
    let text = output.map(|chunk| chunk.unwrap_or_else(|error| Bytes::from(format!("{error}\n"))));
    let closed = async move {
        // A sender that is gone means the same as one that says so.
        closing.wait_for(|closing| *closing).await.ok();
    };
    Ok(respond::stream(
        "text/plain",
        text.take_until(Box::pin(closed)).filter(|chunk| future::ready(!chunk.is_empty())),
    ))
}

fn options(call: &Call, container: String) -> ApiResult<LogOptions> {
    let query = &call.query;
    let count = |key: &str| -> ApiResult<Option<u64>> {
        match query.text(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
                status::bad_request(format!("{key}: Invalid value: {text:?}: must be greater than or equal to 0"))
                    .into()
            }),
        }
    };
    let since = match (query.text("sinceTime"), query.number("sinceSeconds")) {
        (Some(_), Some(_)) => {
            return Err(status::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified").into());
        }
        (Some(text), None) => {
            Some(time::parse(text).ok_or_else(|| status::bad_request(format!("invalid sinceTime {text:?}")))?)
        }
        (None, Some(seconds)) => Timestamp::now().checked_sub(seconds.clamp(0, 1 << 32).seconds()).ok(),
        (None, None) => None,
    };
    Ok(LogOptions {
        container,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since,
        tail_lines: count("tailLines")?,
        limit_bytes: count("limitBytes")?,
    })
}
