//! The life of namespaces: nothing is made in one that is missing or going, and the system's own stay.

use kube_types::{meta, status};
use serde_json::{Value, json};
use store::Compare;

use super::Effects;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::{keys, object};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The namespace must exist and not be terminating, now and at commit.
pub(super) fn on_create(call: &Call, target: &Target, effects: &mut Effects) -> ApiResult<()> {
    if !target.resource.namespaced {
        return Ok(());
    }
    let namespace = &target.namespace;
    let Some(found) = call.server.store.get(&keys::known("", "namespaces", "", namespace)) else {
        let namespaces = call.server.served.find("", "v1", "namespaces").ok_or_else(status::path_not_found)?;
        return Err(status::not_found(&namespaces, namespace).into());
    };
    if meta::is_being_deleted(&object::decode(&found.value)) && !is_access_review(target) {
        let text = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut refusal = status::forbidden(&target.resource, &target.name, &text);
        if let Some(details) = &mut refusal.details {
            details.causes.push(status::Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        return Err(refusal.into());
    }
    effects.compare.push(Compare { key: found.key.clone(), mod_revision: found.mod_revision });
    Ok(())
}

fn is_access_review(target: &Target) -> bool {
    target.resource.group == "authorization.k8s.io"
}

/// Every namespace carries its name as a label, holds its content until that is gone, and has a phase.
pub(super) fn complete(object: &mut Value) {
    let name = meta::name(object).to_owned();
    let going = meta::is_being_deleted(object);
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    if !going && object.pointer("/spec/finalizers").is_none() {
        object["spec"]["finalizers"] = json!(["kubernetes"]);
    }
    object["status"]["phase"] = if going { "Terminating" } else { "Active" }.into();
}

pub(super) fn on_delete(target: &Target) -> ApiResult<()> {
    if IMMORTAL.contains(&target.name.as_str()) {
        return Err(status::forbidden(&target.resource, &target.name, "this namespace may not be deleted").into());
    }
    Ok(())
}
