//! Takes a namespace apart: deletes everything in it, waits until it is gone, then lets the namespace go.
//!
//! Called by the namespace shell. Invariant: the hold is released only after a look found nothing left. What has
//! finalizers or a grace period is waited for: the last pod's end wakes the key, anything else is looked at again soon.

use crate::Context;
use crate::discovery::{self, Place, request};
use crate::runner::Outcome;
use controllers::namespace::finalized;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube_client::ClientError;
use serde_json::{Value, json};

/// When to look again for what no event tells of.
const AGAIN: SignedDuration = SignedDuration::from_millis(250);

pub(crate) async fn take_apart(context: &Context, namespace: &Namespace) -> Outcome {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let mut left = 0;
    for place in discovery::all(&context.client).await? {
        // Events would be written anew by every deletion: they go last, when nothing writes them any more.
        if place.namespaced && place.can_delete && place.plural != "events" {
            left += empty(context, &place, name).await?;
        }
    }
    if left > 0 {
        tracing::debug!(namespace = name, left, "the namespace is not empty yet");
        return Ok(Some(Timestamp::now() + AGAIN));
    }
    let events = Place {
        api_version: "v1".into(),
        kind: "Event".into(),
        plural: "events".into(),
        namespaced: true,
        can_delete: true,
    };
    empty(context, &events, name).await?;
    let Some(changed) = finalized(namespace) else {
        return Ok(None);
    };
    let body = json!(changed);
    let path = format!("/api/v1/namespaces/{name}/finalize");
    match context.client.raw(request(Method::PUT, &path, "application/json", Some(&body))?).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes what the collection holds; says how much is still there.
async fn empty(context: &Context, place: &Place, namespace: &str) -> Result<usize, ClientError> {
    let path = place.path(namespace, "");
    let items = list(context, &path).await?;
    if items.is_empty() {
        return Ok(0);
    }
    for item in &items {
        let meta = &item["metadata"];
        let (Some(name), None) = (meta["name"].as_str(), meta["deletionTimestamp"].as_str()) else {
            continue;
        };
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": meta["uid"]}});
        let path = place.path(namespace, name);
        match context.client.raw(request(Method::DELETE, &path, "application/json", Some(&options))?).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(list(context, &path).await?.len())
}

async fn list(context: &Context, path: &str) -> Result<Vec<Value>, ClientError> {
    match context.client.raw(discovery::get(path)?).await {
        Ok(mut list) => match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        },
        // A kind that went away in the meantime holds nothing.
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
