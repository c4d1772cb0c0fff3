//! Between the version that is stored and the version that a client speaks.
//!
//! Built-in resources share their fields over versions, so only their `apiVersion` changes (`object::in_version`). A custom
//! resource is stored in its definition's storage version; without a webhook its versions differ by name alone. Reads fill in
//! defaults that came after the object was stored.

use bytes::Bytes;
use kube_types::{Resource, meta};
use serde_json::Value;

use crate::call::Call;
use crate::error::ApiResult;
use crate::object::{self, Encoded};

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

async fn one(call: &Call, resource: &Resource, object: Value, wanted: &str) -> ApiResult<Value> {
    Ok(many(call, resource, vec![object], wanted).await?.pop().unwrap_or_default())
}

async fn many(call: &Call, resource: &Resource, objects: Vec<Value>, wanted: &str) -> ApiResult<Vec<Value>> {
    let _ = (call, resource);
    Ok(objects
        .into_iter()
        .map(|mut object| {
            object["apiVersion"] = wanted.into();
            object
        })
        .collect())
}
