//! Certificate signing requests: who asks is written down by the server, who approves or signs must be allowed to for that
//! signer, and an approved request to one of Kubernetes' own signers is signed at once, in the same write.
//!
//! Invariant: nobody gets a certificate of `system:masters`, and nobody but a node one of that node (attacks 38).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use kube_types::{FieldError, meta, status, time};
use serde_json::{Value, json};

use crate::authz::{self, Attributes};
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::identity::{NODE_PREFIX, NODES, SYSTEM_MASTERS};
use crate::object::text;
use crate::pki::Requested;

const GROUP: &str = "certificates.k8s.io";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const DEFAULT_SECONDS: i64 = 365 * 24 * 3600;

pub(super) fn on_create(call: &Call, target: &Target, request: &mut Value) -> ApiResult<()> {
    let user = &call.user;
    for (field, value) in [
        ("username", json!(user.name)),
        ("uid", json!(user.uid)),
        ("groups", json!(user.groups)),
        ("extra", json!(user.extra)),
    ] {
        let empty = value.as_str().is_some_and(str::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty);
        if empty {
            if let Some(spec) = request["spec"].as_object_mut() {
                spec.remove(field);
            }
        } else {
            request["spec"][field] = value;
        }
    }
    let Some(asked) = parse(request) else {
        let shown = request["spec"]["request"].clone();
        let error = FieldError::invalid("spec.request", shown, "PEM block type must be CERTIFICATE REQUEST");
        return Err(status::invalid(&target.resource, meta::name(request), &[error]).into());
    };
    let signer = text(request, "/spec/signerName");
    if signer == CLIENT && asked.organizations.iter().any(|group| group == SYSTEM_MASTERS) {
        let refusal = format!("use of {CLIENT} signer with {SYSTEM_MASTERS} group is not allowed");
        return Err(status::forbidden(&target.resource, meta::name(request), &refusal).into());
    }
    Ok(())
}

fn parse(request: &Value) -> Option<Requested> {
    let pem = BASE64.decode(text(request, "/spec/request")).ok()?;
    Requested::parse(&pem)
}

/// What was asked never changes; conditions change by approval, the certificate by status.
pub(super) fn on_update(call: &Call, target: &Target, old: &Value, new: &mut Value) -> ApiResult<()> {
    new["spec"] = old["spec"].clone();
    match target.subresource.as_str() {
        "approval" => {
            let changed = old["status"]["conditions"] != new["status"]["conditions"];
            if changed {
                check_signer(call, target, old, "approve")?;
            }
            keep(old, new, "certificate");
            date_conditions(old, new);
            if changed {
                sign(call, new)?;
            }
        }
        "status" => {
            if old["status"]["certificate"] != new["status"]["certificate"] {
                check_signer(call, target, old, "sign")?;
            }
            date_conditions(old, new);
        }
        _ => {}
    }
    Ok(())
}

fn keep(old: &Value, new: &mut Value, field: &str) {
    match (old["status"].get(field), new["status"].as_object_mut()) {
        (Some(value), Some(status)) => {
            status.insert(field.to_owned(), value.clone());
        }
        (None, Some(status)) => {
            status.remove(field);
        }
        (_, None) => {}
    }
}

/// The verb on the signer itself, or on all of its domain.
fn check_signer(call: &Call, target: &Target, request: &Value, verb: &str) -> ApiResult<()> {
    let signer = text(request, "/spec/signerName");
    let domain = signer.split_once('/').map_or(String::new(), |(domain, _)| format!("{domain}/*"));
    let allowed = [signer, domain.as_str()].iter().any(|name| {
        let attributes = Attributes { group: GROUP, resource: "signers", name, ..Attributes::verb(verb) };
        authz::decide(&call.server, &call.user, &attributes)
    });
    if allowed {
        return Ok(());
    }
    let refusal = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(status::forbidden(&target.resource, &target.name, &refusal).into())
}

fn date_conditions(old: &Value, new: &mut Value) {
    let now = time::rfc3339(Timestamp::now());
    let before = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let known = before.iter().find(|one| one["type"] == condition["type"]);
        let same = known.is_some_and(|known| known["status"] == condition["status"]);
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.as_str().into();
        }
        if condition["lastTransitionTime"].is_null() {
            condition["lastTransitionTime"] = match known.filter(|_| same) {
                Some(known) => known["lastTransitionTime"].clone(),
                None => now.as_str().into(),
            };
        }
    }
}

fn has_condition(request: &Value, kind: &str) -> bool {
    let conditions = request["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == kind)
}

fn sign(call: &Call, request: &mut Value) -> ApiResult<()> {
    let issued = request["status"]["certificate"].as_str().is_some_and(|text| !text.is_empty());
    if issued || !has_condition(request, "Approved") || has_condition(request, "Denied") {
        return Ok(());
    }
    let Some(asked) = parse(request) else { return Ok(()) };
    let usages: Vec<&str> = request["spec"]["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Err(reason) = may_sign(text(request, "/spec/signerName"), text(request, "/spec/username"), &asked, &usages) {
        // Another program signs for signers that are not Kubernetes' own; a bad request to ours fails for good.
        if let Some(reason) = reason {
            fail(request, reason);
        }
        return Ok(());
    }
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS).clamp(600, DEFAULT_SECONDS);
    let pem = call.server.pki.sign_request(&asked, &usages, seconds).map_err(status::internal)?;
    request["status"]["certificate"] = BASE64.encode(pem).into();
    Ok(())
}

fn fail(request: &mut Value, reason: &str) {
    let now = time::rfc3339(Timestamp::now());
    let condition = json!({
        "type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": reason,
        "lastUpdateTime": now, "lastTransitionTime": now,
    });
    if let Some(conditions) = request.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.push(condition);
    }
}

/// Whether one of Kubernetes' own signers signs this; `Err(None)` for signers that are somebody else's.
fn may_sign(signer: &str, user: &str, asked: &Requested, usages: &[&str]) -> Result<(), Option<&'static str>> {
    let only = |allowed: &[&str]| usages.iter().all(|usage| allowed.contains(usage));
    let is_node = asked.organizations == [NODES] && asked.common_name.starts_with(NODE_PREFIX);
    let problem = match signer {
        CLIENT if asked.organizations.iter().any(|group| group == SYSTEM_MASTERS) => {
            "organization system:masters is not allowed"
        }
        CLIENT if asked.common_name.is_empty() => "subject common name is required",
        CLIENT if !usages.contains(&"client auth") => "usages did not contain client auth",
        CLIENT if !only(&["digital signature", "key encipherment", "client auth"]) => "usages are not allowed",
        CLIENT => return Ok(()),
        KUBELET_CLIENT | KUBELET_SERVING if !is_node => "subject is not that of a node",
        KUBELET_CLIENT if asked.has_names => "subjectAltNames are not allowed",
        KUBELET_CLIENT if !usages.contains(&"client auth") => "usages did not contain client auth",
        KUBELET_CLIENT if !only(&["digital signature", "key encipherment", "client auth"]) => "usages are not allowed",
        KUBELET_CLIENT if user.starts_with(NODE_PREFIX) && user != asked.common_name => "a node asks for another node",
        KUBELET_SERVING if user != asked.common_name => "a node asks for another node",
        KUBELET_SERVING if !asked.has_names => "DNS or IP subjectAltName is required",
        KUBELET_SERVING if !usages.contains(&"server auth") => "usages did not contain server auth",
        KUBELET_SERVING if !only(&["digital signature", "key encipherment", "server auth"]) => "usages are not allowed",
        KUBELET_CLIENT | KUBELET_SERVING => return Ok(()),
        _ => return Err(None),
    };
    Err(Some(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, groups: &[&str], has_names: bool) -> Requested {
        Requested::for_tests(name, groups, has_names)
    }

    #[test]
    fn a_request_of_another_node_or_of_masters_is_not_signed() {
        let node = "system:node:a";
        for (signer, user, asked, usages, expected) in [
            (CLIENT, "ann", asked("ann", &["dev"], false), &["client auth"][..], Ok(())),
            (CLIENT, "ann", asked("ann", &[SYSTEM_MASTERS], false), &["client auth"], Err(Some("organization system:masters is not allowed"))),
            (CLIENT, "ann", asked("ann", &[], false), &["server auth"], Err(Some("usages did not contain client auth"))),
            (KUBELET_CLIENT, node, asked(node, &[NODES], false), &["client auth"], Ok(())),
            (KUBELET_CLIENT, node, asked("system:node:b", &[NODES], false), &["client auth"], Err(Some("a node asks for another node"))),
            (KUBELET_SERVING, node, asked(node, &[NODES], true), &["server auth"], Ok(())),
            (KUBELET_SERVING, "ann", asked(node, &[NODES], true), &["server auth"], Err(Some("a node asks for another node"))),
            ("example.com/mine", "ann", asked("ann", &[], false), &["client auth"], Err(None)),
        ] {
            assert_eq!(may_sign(signer, user, &asked, usages), expected, "{signer} {user}");
        }
    }
}
