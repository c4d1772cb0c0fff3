//! `…/scale`: the replicas of anything that has them, as one small kind.

use http::StatusCode;
use kube_types::custom::{ScalePaths, json_path};
use kube_types::lifecycle::Subresource;
use kube_types::{FieldError, meta, patch as patches, status};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::handlers::{get as plain, patch};
use crate::object;
use crate::respond::{self, Reply};
use crate::write::{self, Change};

pub(super) fn get(call: &Call, target: &Target) -> ApiResult<Reply> {
    let object = object::decode(&plain::find(call, target)?.value);
    Ok(respond::json(StatusCode::OK, &checked(target, &object)?))
}

/// The scale of an object that has replicas at all.
fn checked(target: &Target, object: &Value) -> ApiResult<Value> {
    if let Some(paths) = paths(target)
        && json_path::at(object, &paths.spec_replicas).is_none()
    {
        let text = format!("the spec replicas field {:?} does not exist", paths.spec_replicas);
        return Err(status::internal(text).into());
    }
    Ok(of(target, object))
}

/// Where a custom resource's definition says that the replicas are.
fn paths(target: &Target) -> Option<&ScalePaths> {
    target.resource.custom()?.scale.as_ref()
}

pub(super) async fn write(call: &Call, target: &Target, is_patch: bool) -> ApiResult<Reply> {
    let form = if is_patch { Some(patch::Form::of(call)?) } else { None };
    let body = call.loose_body_of_any_type()?;
    let options = call.write_options()?;
    let change = |old: &Value| {
        let scale = match form {
            None => body.clone(),
            Some(patch::Form::Json) => patches::json(&of(target, old), &body)?,
            // A scale has no lists, so the other forms merge alike.
            Some(_) => patches::merge(&of(target, old), &body)?,
        };
        with_replicas(target, old, &scale, is_patch && body.pointer("/metadata/resourceVersion").is_none())
    };
    let change = Change { subresource: Subresource::Named("scale"), record_manager: true, change: &change };
    let written = write::update(call, target, &options, &change).await?;
    Ok(respond::json(StatusCode::OK, &of(target, &object::decode(&written.stored))))
}

fn with_replicas(target: &Target, old: &Value, scale: &Value, any_version: bool) -> ApiResult<Value> {
    let replicas = scale.pointer("/spec/replicas").cloned().unwrap_or(json!(0));
    if replicas.as_i64().is_none_or(|count| count < 0) {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(status::invalid(&target.resource, &target.name, &[error]).into());
    }
    let mut new = old.clone();
    match paths(target) {
        Some(paths) => {
            json_path::set(&mut new, &paths.spec_replicas, replicas);
        }
        None => new["spec"]["replicas"] = replicas,
    }
    let version = if any_version { "" } else { meta::resource_version(scale) };
    meta::set_resource_version(&mut new, version);
    let uid = meta::uid(scale);
    if !uid.is_empty() {
        meta::set_uid(&mut new, uid);
    }
    Ok(new)
}

/// The scale of an object.
pub(super) fn of(target: &Target, object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let paths = paths(target);
    let (wanted, actual) = match paths {
        Some(paths) => (json_path::at(object, &paths.spec_replicas), json_path::at(object, &paths.status_replicas)),
        None => (object.pointer("/spec/replicas"), object.pointer("/status/replicas")),
    };
    let count = |value: Option<&Value>| value.cloned().unwrap_or(json!(0));
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": count(wanted)}, "status": {"replicas": count(actual)},
    });
    let selector = match paths {
        Some(paths) => json_path::at(object, &paths.label_selector).and_then(Value::as_str).map(str::to_owned),
        None => object.pointer("/spec/selector").map(selector_text),
    };
    if let Some(selector) = selector.filter(|text| !text.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A selector in the syntax of a query: `a=b,c in (d,e)`.
fn selector_text(selector: &Value) -> String {
    let is_typed = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if is_typed { &selector["matchLabels"] } else { selector };
    let mut parts: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = object::text(expression, "/key");
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match object::text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_names_its_pods_by_a_query_selector() {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "a", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "selector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
            }},
            "status": {"replicas": 2},
        });
        let found = kube_types::registry::find_by_gvr("apps", "v1", "deployments").expect("built in").clone();
        let target = Target {
            resource: std::sync::Arc::new(found),
            namespace: "a".to_owned(),
            name: "web".to_owned(),
            subresource: "scale".to_owned(),
        };
        let scale = of(&target, &deployment);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web,tier in (a,b)"}));
        assert_eq!(scale["metadata"], json!({"name": "web", "namespace": "a"}));
        let controller = json!({"metadata": {}, "spec": {"selector": {"app": "web"}}});
        assert_eq!(of(&target, &controller)["status"]["selector"], "app=web");
    }
}
