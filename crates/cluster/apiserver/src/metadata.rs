//! The part of `metadata` that belongs to the server: identity, times, and when an object may go.

use jiff::Timestamp;
use kube_types::{meta, status};
use serde_json::Value;

use crate::call::Target;
use crate::error::ApiResult;

/// Fields of `metadata` that no client can change.
const SYSTEM_FIELDS: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "namespace"];

pub(crate) fn stamp_new(target: &Target, object: &mut Value, now: Timestamp) {
    meta::set_uid(object, &uuid::Uuid::new_v4().to_string());
    meta::set_creation(object, now);
    meta::set(object, "deletionTimestamp", None);
    meta::set(object, "deletionGracePeriodSeconds", None);
    meta::set(object, "selfLink", None);
    meta::set(object, "resourceVersion", None);
    if target.resource.namespaced {
        meta::set_namespace(object, &target.namespace);
    } else {
        meta::set(object, "namespace", None);
    }
}

pub(crate) fn keep_system_fields(old: &Value, new: &mut Value) {
    for field in SYSTEM_FIELDS {
        meta::set(new, field, old["metadata"].get(field).cloned());
    }
    meta::set(new, "selfLink", None);
    meta::set(new, "resourceVersion", old["metadata"].get("resourceVersion").cloned());
    new["apiVersion"] = old["apiVersion"].clone();
    new["kind"] = old["kind"].clone();
}

/// A body's name and namespace must be those of the path.
pub(crate) fn check_path(target: &Target, object: &Value) -> ApiResult<()> {
    let (name, namespace) = (meta::name(object), meta::namespace(object));
    if !target.name.is_empty() && !name.is_empty() && name != target.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(status::bad_request(text).into());
    }
    if target.resource.namespaced && !namespace.is_empty() && namespace != target.namespace {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(status::bad_request(text).into());
    }
    Ok(())
}

/// resourceVersion and uid in the new object are preconditions.
pub(crate) fn check_same_object(target: &Target, old: &Value, new: &Value) -> ApiResult<()> {
    check_path(target, new)?;
    let uid = meta::uid(new);
    if !uid.is_empty() && uid != meta::uid(old) {
        let text = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(old));
        return Err(status::conflict(&target.resource, &target.name, &text).into());
    }
    let version = meta::resource_version(new);
    if !version.is_empty() && version != "0" && version != meta::resource_version(old) {
        return Err(status::modified(&target.resource, &target.name).into());
    }
    Ok(())
}

/// Whether nothing holds a deleted object any more: no finalizer, no grace still running, no content.
pub(crate) fn may_vanish(target: &Target, object: &Value) -> bool {
    let finalizers = meta::finalizers(object).next().is_some();
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let content = target.is("", "namespaces")
        && object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|held| !held.is_empty());
    meta::is_being_deleted(object) && !finalizers && grace == 0 && !content
}

/// Whether a write would change nothing but the time at which a manager wrote.
pub(crate) fn is_same(old: &Value, new: &Value) -> bool {
    fn timeless(object: &Value) -> Vec<Value> {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let mut entries = entries.cloned().unwrap_or_default();
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        entries
    }
    fn rest_is_same(old: &Value, new: &Value, without: &str) -> bool {
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
            return old == new;
        };
        let differs = |(key, value): (&String, &Value), other: &serde_json::Map<String, Value>| {
            key != without && other.get(key) != Some(value)
        };
        !old.iter().any(|member| differs(member, new)) && !new.iter().any(|member| differs(member, old))
    }
    rest_is_same(old, new, "metadata")
        && rest_is_same(&old["metadata"], &new["metadata"], "managedFields")
        && timeless(old) == timeless(new)
}
