//! Accessors for the metadata of an object that is held as a JSON value.
//!
//! Used by everything that handles objects of any kind. Reading never fails: what is absent or of another type reads as
//! empty. Writing makes `metadata` when it is not there.

use crate::time;
use jiff::Timestamp;
use serde_json::{Map, Value};

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or("")
}

pub fn name(object: &Value) -> &str {
    text(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

pub fn generation(object: &Value) -> i64 {
    object.get("metadata").and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
}

pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or("")
}

pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or("")
}

pub fn creation(object: &Value) -> Option<Timestamp> {
    time::parse(text(object, "creationTimestamp"))
}

pub fn deletion(object: &Value) -> Option<Timestamp> {
    time::parse(text(object, "deletionTimestamp"))
}

pub fn is_being_deleted(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// All labels; values that are no strings are left out.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    let map = object.get("metadata").and_then(|m| m.get("labels")).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}

pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    let list = object.get("metadata").and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

pub fn owner_references(object: &Value) -> impl Iterator<Item = OwnerReference<'_>> {
    let list = object.get("metadata").and_then(|m| m.get("ownerReferences")).and_then(Value::as_array);
    list.into_iter().flatten().map(|owner| {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or("");
        let flag = |field: &str| owner.get(field).and_then(Value::as_bool).unwrap_or(false);
        OwnerReference {
            api_version: text("apiVersion"),
            kind: text("kind"),
            name: text("name"),
            uid: text("uid"),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    })
}

/// The owner that has `controller: true`.
pub fn controller_of(object: &Value) -> Option<OwnerReference<'_>> {
    owner_references(object).find(|owner| owner.controller)
}

/// `metadata` as a map, made when it is absent.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(object, "metadata")
}

/// A field as a map; field and object are made, or replaced, when they are none.
pub(crate) fn child_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let slot = as_map(object).entry(field).or_insert(Value::Null);
    as_map(slot)
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

/// Sets or, with `None`, removes a metadata field.
pub fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let metadata = metadata_mut(object);
    match value {
        Some(value) => {
            metadata.insert(field.to_owned(), value);
        }
        None => {
            metadata.remove(field);
        }
    }
}

pub fn set_name(object: &mut Value, name: &str) {
    set(object, "name", Some(name.into()));
}

pub fn set_namespace(object: &mut Value, namespace: &str) {
    set(object, "namespace", Some(namespace.into()));
}

pub fn set_uid(object: &mut Value, uid: &str) {
    set(object, "uid", Some(uid.into()));
}

pub fn set_resource_version(object: &mut Value, version: &str) {
    set(object, "resourceVersion", Some(version.into()));
}

pub fn set_creation(object: &mut Value, at: Timestamp) {
    set(object, "creationTimestamp", Some(time::rfc3339(at).into()));
}

pub fn set_deletion(object: &mut Value, at: Timestamp, grace_period_seconds: i64) {
    set(object, "deletionTimestamp", Some(time::rfc3339(at).into()));
    set(object, "deletionGracePeriodSeconds", Some(grace_period_seconds.into()));
}

pub fn set_generation(object: &mut Value, generation: i64) {
    set(object, "generation", Some(generation.into()));
}
