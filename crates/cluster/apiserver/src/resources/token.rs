//! `serviceaccounts/token`: a TokenRequest answered with a signed token, bound to a pod if one is named.

use http::StatusCode;
use jiff::{Timestamp, ToSpan as _};
use kube_types::{FieldError, meta, status, time};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::handlers::get;
use crate::keys;
use crate::object::{self, text};
use crate::respond::{self, Reply};
use crate::token::{BoundObject, Grant};

const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;

pub(super) fn create(call: &Call, target: &Target) -> ApiResult<Reply> {
    let mut request = call.loose_body()?;
    let account = object::decode(&get::find(call, target)?.value);
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    if !(SHORTEST_SECONDS..=LONGEST_SECONDS).contains(&seconds) {
        let detail = if seconds < SHORTEST_SECONDS {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
        return Err(status::invalid(&target.resource, &target.name, &[error]).into());
    }
    let bound = bound_object(call, target, &request)?;
    crate::authz::node::check_token_request(call, target, bound.as_ref())?;
    let audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect();
    let now = Timestamp::now();
    let expires = now.checked_add(seconds.seconds()).map_err(status::internal)?;
    let grant = Grant {
        namespace: &target.namespace,
        account: &target.name,
        account_uid: meta::uid(&account),
        audiences: &audiences,
        bound: bound.as_ref(),
    };
    let token = call.server.tokens.sign(&grant, now, expires)?;
    if !request.is_object() {
        request = json!({});
    }
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] =
        json!({"name": target.name, "namespace": target.namespace, "creationTimestamp": time::rfc3339(now)});
    request["spec"]["expirationSeconds"] = seconds.into();
    request["spec"]["audiences"] = call.server.tokens.audiences(&audiences).into();
    request["status"] = json!({"token": token, "expirationTimestamp": time::rfc3339(expires)});
    Ok(respond::json(StatusCode::CREATED, &request))
}

fn bound_object(call: &Call, target: &Target, request: &Value) -> ApiResult<Option<BoundObject>> {
    let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|reference| reference.is_object()) else {
        return Ok(None);
    };
    let (plural, namespace) = match text(reference, "/kind") {
        "Pod" => ("pods", target.namespace.as_str()),
        "Secret" => ("secrets", target.namespace.as_str()),
        "Node" => ("nodes", ""),
        other => {
            return Err(status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to type {other:?}",
                target.name
            ))
            .into());
        }
    };
    let name = text(reference, "/name");
    let resource = call.server.served.find("", "v1", plural).ok_or_else(status::path_not_found)?;
    let found =
        keys::is_segment(name).then(|| call.server.store.get(&keys::object(&resource, namespace, name))).flatten();
    let found = object::decode(&found.ok_or_else(|| status::not_found(&resource, name))?.value);
    let uid = text(reference, "/uid");
    if !uid.is_empty() && uid != meta::uid(&found) {
        let detail = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(status::conflict(&resource, name, &detail).into());
    }
    if plural == "pods" && text(&found, "/spec/serviceAccountName") != target.name {
        let text = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            target.name
        );
        return Err(status::bad_request(text).into());
    }
    let node = if plural == "pods" { text(&found, "/spec/nodeName").to_owned() } else { String::new() };
    Ok(Some(BoundObject { plural: plural.to_owned(), name: name.to_owned(), uid: meta::uid(&found).to_owned(), node }))
}
