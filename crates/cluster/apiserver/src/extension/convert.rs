//! Between the version that is stored and the version that a client speaks.
//!
//! Built-in resources share their fields over versions, so only their `apiVersion` changes (`object::in_version`). A custom
//! resource is stored in its definition's storage version; without a webhook its versions differ by name alone. Reads fill in
//! defaults that came after the object was stored.

use std::time::Duration;

use bytes::Bytes;
use kube_types::{Resource, meta, status};
use serde_json::{Value, json};

use super::outbound::Destination;
use crate::call::Call;
use crate::error::ApiResult;
use crate::object::{self, Encoded};

/// The longest that a conversion may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A stored object in the version of `resource`, to be changed.
pub(crate) async fn from_store(call: &Call, resource: &Resource, stored: &[u8]) -> ApiResult<Value> {
    let mut value = object::decode(stored);
    let Some(custom) = resource.custom() else { return Ok(value) };
    let wanted = resource.api_version();
    if meta::api_version(&value) != wanted {
        value = one(call, resource, value, &wanted).await?;
    }
    custom.default(&mut value);
    Ok(value)
}

/// An object as it is to be stored.
pub(crate) async fn to_store(call: &Call, resource: &Resource, object: &Value) -> ApiResult<Encoded> {
    let Some(kind) = call.server.served.kind_of(resource) else { return Ok(Encoded::new(object)) };
    if meta::api_version(object) == kind.storage_version {
        return Ok(Encoded::new(object));
    }
    let converted = one(call, resource, object.clone(), &kind.storage_version).await?;
    Ok(Encoded::new(&converted))
}

/// Whether stored bytes are in the version in which the resource is stored now.
pub(crate) fn is_current(call: &Call, resource: &Resource, stored: &[u8]) -> bool {
    call.server.served.kind_of(resource).is_none_or(|kind| {
        stored.starts_with(format!("{{\"apiVersion\":\"{}\",", kind.storage_version).as_bytes())
    })
}

/// Stored objects as clients of `resource` are to see them. Costs nothing for what is stored as it is served.
pub(crate) async fn to_client(call: &Call, resource: &Resource, stored: Vec<Bytes>) -> ApiResult<Vec<Bytes>> {
    let wanted = resource.api_version();
    let Some(custom) = resource.custom() else {
        return Ok(stored.iter().map(|bytes| object::in_version(bytes, &wanted)).collect());
    };
    let webhook = call.server.served.kind_of(resource).is_some_and(|kind| kind.webhook.is_some());
    if !webhook && !custom.has_defaults {
        return Ok(stored.iter().map(|bytes| object::in_version(bytes, &wanted)).collect());
    }
    let values: Vec<Value> = stored.iter().map(|bytes| object::decode(bytes)).collect();
    let values = many(call, resource, values, &wanted).await?;
    Ok(values.into_iter().map(|value| shown(custom, value)).collect())
}

fn shown(custom: &kube_types::custom::CustomSchema, mut value: Value) -> Bytes {
    custom.default(&mut value);
    let revision = meta::resource_version(&value).parse().unwrap_or(0);
    Encoded::new(&value).at(revision)
}

pub(crate) async fn one(call: &Call, resource: &Resource, object: Value, wanted: &str) -> ApiResult<Value> {
    Ok(many(call, resource, vec![object], wanted).await?.pop().unwrap_or_default())
}

/// All objects in one version, by one call of the webhook for those that differ.
async fn many(call: &Call, resource: &Resource, objects: Vec<Value>, wanted: &str) -> ApiResult<Vec<Value>> {
    let webhook = call.server.served.kind_of(resource).and_then(|kind| kind.webhook.clone());
    let differs = |object: &&Value| meta::api_version(object) != wanted;
    let Some(webhook) = webhook.filter(|_| objects.iter().any(|object| differs(&object))) else {
        return Ok(objects.into_iter().map(|object| renamed(object, wanted)).collect());
    };
    let asked: Vec<Value> = objects.iter().filter(differs).cloned().collect();
    let from = format!("{}, Kind={}", meta::api_version(&asked[0]), resource.kind);
    let failed = |words: String| status::internal(format!("conversion webhook for {from} failed: {words}"));
    let converted = review(call, &webhook, &asked, wanted).await.map_err(failed)?;
    let mut converted = converted.into_iter();
    let mut all = Vec::with_capacity(objects.len());
    for object in objects {
        if meta::api_version(&object) == wanted {
            all.push(object);
            continue;
        }
        let mut made = converted.next().unwrap_or_default();
        keep_identity(&object, &mut made).map_err(|words| failed(words.to_owned()))?;
        all.push(made);
    }
    Ok(all)
}

fn renamed(mut object: Value, wanted: &str) -> Value {
    object["apiVersion"] = wanted.into();
    object
}

/// A conversion may change labels and annotations, and nothing else of the metadata.
fn keep_identity(before: &Value, after: &mut Value) -> Result<(), &'static str> {
    if meta::kind(before) != meta::kind(after) || meta::name(before) != meta::name(after) {
        return Err("must have the same kind and name as the original");
    }
    if meta::uid(before) != meta::uid(after) {
        return Err("must have the same UID as the original");
    }
    let mut metadata = before["metadata"].clone();
    for field in ["labels", "annotations"] {
        match (after["metadata"].get(field), metadata.as_object_mut()) {
            (Some(value), Some(all)) => {
                all.insert(field.to_owned(), value.clone());
            }
            (None, Some(all)) => {
                all.remove(field);
            }
            (_, None) => {}
        }
    }
    after["metadata"] = metadata;
    Ok(())
}

async fn review(call: &Call, webhook: &Value, objects: &[Value], wanted: &str) -> Result<Vec<Value>, String> {
    let versions = webhook["conversionReviewVersions"].as_array().map_or(&[][..], Vec::as_slice);
    let version = versions.iter().filter_map(Value::as_str).find(|version| matches!(*version, "v1" | "v1beta1"));
    let version = format!("apiextensions.k8s.io/{}", version.unwrap_or("v1"));
    let uid = uuid::Uuid::new_v4().to_string();
    let request = json!({"uid": uid, "desiredAPIVersion": wanted, "objects": objects});
    let body = json!({"kind": "ConversionReview", "apiVersion": version, "request": request});
    let destination = Destination::of_client_config(&webhook["clientConfig"]).map_err(|error| error.to_string())?;
    let query = format!("timeout={}s", TIMEOUT.as_secs());
    let answer = destination.post(&call.server.store, &query, &body, TIMEOUT).await;
    let answer = answer.map_err(|error| format!("Post \"{}?{query}\": {error}", destination.url()))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| format!("invalid response: {error}"))?;
    let response = &answer["response"];
    if response["uid"] != uid.as_str() {
        return Err(format!("expected response.uid={uid:?}, got {:?}", object::text(response, "/uid")));
    }
    if response["result"]["status"] != "Success" {
        let message = object::text(response, "/result/message");
        return Err(if message.is_empty() { "unknown reason".to_owned() } else { message.to_owned() });
    }
    let converted = response["convertedObjects"].as_array().cloned().unwrap_or_default();
    if converted.len() != objects.len() {
        return Err(format!("returned {} objects, expected {}", converted.len(), objects.len()));
    }
    match converted.iter().find(|object| meta::api_version(object) != wanted) {
        Some(wrong) => Err(format!("returned an object of {}, expected {wanted}", meta::api_version(wrong))),
        None => Ok(converted),
    }
}
