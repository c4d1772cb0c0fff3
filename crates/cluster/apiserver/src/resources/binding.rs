//! `pods/binding`: the scheduler's decision, written into the pod once.

use http::StatusCode;
use jiff::Timestamp;
use kube_types::time;
use kube_types::{FieldError, meta, status};
use serde_json::{Value, json};

use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::handlers::get;
use crate::object::{self, text};
use crate::respond::{self, Reply};
use crate::write;

const ATTEMPTS: usize = 16;

pub(super) async fn create(call: &Call, target: &Target) -> ApiResult<Reply> {
    let body = call.loose_body()?;
    let pods = call.server.served.find("", "v1", "pods").ok_or_else(status::path_not_found)?;
    let name = if target.name.is_empty() { meta::name(&body).to_owned() } else { target.name.clone() };
    let target = Target { resource: pods, name, subresource: "binding".to_owned(), ..target.clone() };
    let node = text(&body, "/target/name");
    if !matches!(text(&body, "/target/kind"), "" | "Node") || node.is_empty() {
        let error = FieldError::required("target.name", "");
        return Err(status::invalid(&target.resource, &target.name, &[error]).into());
    }
    let dry_run = call.write_options_with(&body)?.dry_run;
    for _ in 0..ATTEMPTS {
        let found = get::find(call, &target)?;
        let mut pod = object::decode(&found.value);
        check(&target, &body, &pod)?;
        bind(&mut pod, &body, node);
        if dry_run || write::replace(call, &target, &found, &pod).await?.is_some() {
            let success =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            return Ok(respond::json(StatusCode::CREATED, &success));
        }
    }
    Err(status::modified(&target.resource, &target.name).into())
}

fn check(target: &Target, body: &Value, pod: &Value) -> ApiResult<()> {
    let uid = meta::uid(body);
    let refusal = if meta::is_being_deleted(pod) {
        format!("pod {} is being deleted, cannot be assigned to a host", target.name)
    } else if !text(pod, "/spec/nodeName").is_empty() {
        format!("pod {} is already assigned to node {:?}", target.name, text(pod, "/spec/nodeName"))
    } else if !uid.is_empty() && uid != meta::uid(pod) {
        format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::uid(pod))
    } else if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        format!("pod {} has non-empty .spec.schedulingGates", target.name)
    } else {
        return Ok(());
    };
    Err(status::conflict(&target.resource, &target.name, &refusal).into())
}

fn bind(pod: &mut Value, body: &Value, node: &str) {
    pod["spec"]["nodeName"] = node.into();
    for (key, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
        pod["metadata"]["annotations"][key] = value.clone();
    }
    let now = time::rfc3339(Timestamp::now());
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    match pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        Some(conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(scheduled);
        }
        None => pod["status"]["conditions"] = json!([scheduled]),
    }
}
