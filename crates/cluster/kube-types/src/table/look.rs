//! How values of objects look in cells.

use crate::meta;
use crate::selector::LabelSelector;
use crate::time;
use jiff::Timestamp;
use serde_json::Value;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";
pub(super) const UNSET: &str = "<unset>";

pub(super) fn name(object: &Value) -> Value {
    meta::name(object).into()
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    time::age(meta::creation(object), now).into()
}

/// Age of a time given as text.
pub(super) fn since(at: &Value, now: Timestamp) -> String {
    time::age(at.as_str().and_then(time::parse), now)
}

pub(super) fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

pub(super) fn int_of(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The text, or `otherwise` when it is empty.
pub(super) fn or<'v>(value: &'v Value, otherwise: &'v str) -> &'v str {
    match str_of(value) {
        "" => otherwise,
        text => text,
    }
}

/// Joined by commas, `<none>` when there is nothing.
pub(super) fn joined(texts: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = texts.collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}

pub(super) fn strings(value: &Value) -> impl Iterator<Item = String> {
    items(value).iter().filter_map(Value::as_str).map(str::to_owned)
}

/// A number or text as it is written (int-or-string fields).
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `a=b,c=d`
pub(super) fn labels(map: &Value) -> String {
    joined(map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", str_of(value))))
}

/// A metav1.LabelSelector.
pub(super) fn selector(selector: &Value) -> String {
    match LabelSelector::from_value(selector) {
        Ok(found) if found.requirements().is_empty() => NONE.to_owned(),
        Ok(found) => found.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of a pod spec's containers.
pub(super) fn containers(pod_spec: &Value) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let all: Vec<&str> = items(&pod_spec["containers"]).iter().map(|c| str_of(&c[field])).collect();
        all.join(",").into()
    })
}

/// The status (`True`, …) of a condition.
pub(super) fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v str> {
    items(&object["status"]["conditions"]).iter().find(|c| c["type"] == kind).map(|c| str_of(&c["status"]))
}
