//! One handler per verb, for every kind alike; what a kind does differently is in `resources` and `admission`.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod present;
pub(crate) mod select;
pub(crate) mod update;
pub(crate) mod watch;

use bytes::Bytes;
use http::StatusCode;
use kube_types::status;

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::extension::convert;
use crate::respond::Reply;
use crate::{resources, reviews};

/// Answers a request whose resource is served. It has been authorised.
pub(crate) async fn serve(call: &Call, target: &Target) -> ApiResult<Reply> {
    if let Some(warning) = target.resource.deprecation() {
        call.warn(warning);
    }
    if let Some(reply) = reviews::serve(call, target)? {
        return Ok(reply);
    }
    if let Some(reply) = resources::serve(call, target).await? {
        return Ok(reply);
    }
    if !allows(target, call.info.verb) {
        return Err(status::method_not_allowed().into());
    }
    match call.info.verb {
        "get" => get::serve(call, target).await,
        "list" => list::serve(call, target).await,
        "watch" => watch::serve(call, target).await,
        "create" => create::serve(call, target).await,
        "update" => update::serve(call, target).await,
        "patch" => patch::serve(call, target).await,
        "delete" => delete::serve(call, target).await,
        "deletecollection" => delete::serve_collection(call, target).await,
        _ => Err(status::method_not_allowed().into()),
    }
}

fn allows(target: &Target, verb: &str) -> bool {
    match target.subresource.as_str() {
        "" if verb == "create" && !target.name.is_empty() => false,
        _ if matches!(verb, "update" | "patch") && target.name.is_empty() => false,
        "" => target.resource.has_verb(verb),
        subresource => target
            .resource
            .subresources
            .iter()
            .any(|own| own.name == subresource && own.verbs.iter().any(|allowed| allowed == verb)),
    }
}

/// The answer that carries one stored object.
pub(crate) async fn one(call: &Call, target: &Target, code: StatusCode, stored: &Bytes) -> ApiResult<Reply> {
    let shown = convert::to_client(call, &target.resource, vec![stored.clone()]).await?;
    present::one(call, &target.resource, code, shown.first().unwrap_or(stored))
}
