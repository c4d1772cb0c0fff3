//! Questions about access, asked as objects that are answered and never stored: `SubjectAccessReview` and its kin,
//! `SelfSubjectRulesReview`, `SelfSubjectReview`, `TokenReview`.

use http::StatusCode;
use jiff::Timestamp;
use kube_types::{FieldError, status};
use serde_json::{Value, json};

use crate::authz::{self, Attributes};
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::identity::Identity;
use crate::object::text;
use crate::respond::{self, Reply};

/// `None` for everything that is no review.
pub(crate) fn serve(call: &Call, target: &Target) -> ApiResult<Option<Reply>> {
    if call.info.verb != "create" || !target.subresource.is_empty() {
        return Ok(None);
    }
    let answer: fn(&Call, &Target, &mut Value) -> ApiResult<Value> =
        match (target.resource.group.as_ref(), target.resource.plural.as_ref()) {
            ("authorization.k8s.io", "selfsubjectaccessreviews") => self_access,
            ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => subject_access,
            ("authorization.k8s.io", "selfsubjectrulesreviews") => self_rules,
            ("authentication.k8s.io", "selfsubjectreviews") => self_subject,
            ("authentication.k8s.io", "tokenreviews") => token,
            _ => return Ok(None),
        };
    let mut review = call.decode_body(&target.resource)?;
    let status = answer(call, target, &mut review)?;
    review["status"] = status;
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    review["metadata"]["creationTimestamp"] = Value::Null;
    Ok(Some(respond::json(StatusCode::CREATED, &review)))
}

fn user_info(user: &Identity) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn self_access(call: &Call, target: &Target, review: &mut Value) -> ApiResult<Value> {
    decide(call, target, &call.user, &review["spec"])
}

fn subject_access(call: &Call, target: &Target, review: &mut Value) -> ApiResult<Value> {
    let spec = &review["spec"];
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let subject = Identity {
        name: text(spec, "/user").to_owned(),
        uid: text(spec, "/uid").to_owned(),
        groups: list(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.clone(), list(values)))
            .collect(),
    };
    if subject.name.is_empty() && subject.groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(status::invalid(&target.resource, "", &[error]).into());
    }
    decide(call, target, &subject, spec)
}

fn decide(call: &Call, target: &Target, user: &Identity, spec: &Value) -> ApiResult<Value> {
    let asked = &spec["resourceAttributes"];
    let path = text(spec, "/nonResourceAttributes/path");
    let attributes = match (asked.is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, false) => Attributes {
            verb: text(asked, "/verb"),
            group: text(asked, "/group"),
            resource: text(asked, "/resource"),
            subresource: text(asked, "/subresource"),
            namespace: text(asked, "/namespace"),
            name: text(asked, "/name"),
            path: None,
        },
        (false, true) => Attributes { path: Some(path), ..Attributes::verb(text(spec, "/nonResourceAttributes/verb")) },
        (_, both) => {
            let detail = if both {
                "cannot be specified in combination with resourceAttributes"
            } else {
                "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            };
            let error = FieldError::invalid("spec.resourceAttributes", asked.clone(), detail);
            return Err(status::invalid(&target.resource, "", &[error]).into());
        }
    };
    if target.resource.plural == "localsubjectaccessreviews" && attributes.namespace != target.namespace {
        let error = FieldError::invalid(
            "spec.resourceAttributes.namespace",
            attributes.namespace,
            "must match metadata.namespace",
        );
        return Err(status::invalid(&target.resource, "", &[error]).into());
    }
    Ok(json!({"allowed": authz::decide(&call.server, user, &attributes)}))
}

fn self_rules(call: &Call, _target: &Target, review: &mut Value) -> ApiResult<Value> {
    let namespace = text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(status::bad_request("no namespace on request").into());
    }
    let (mut resources, mut paths) = call.server.rbac.rules_of(&call.user, namespace);
    if call.user.is_master() {
        // Masters need no role, but usually have one that says the same.
        let all = [
            (&mut resources, json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
            (&mut paths, json!({"verbs": ["*"], "nonResourceURLs": ["*"]})),
        ];
        for (rules, all) in all {
            if !rules.contains(&all) {
                rules.push(all);
            }
        }
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

fn self_subject(call: &Call, _target: &Target, _review: &mut Value) -> ApiResult<Value> {
    Ok(json!({"userInfo": user_info(&call.user)}))
}

fn token(call: &Call, _target: &Target, review: &mut Value) -> ApiResult<Value> {
    let audiences: Vec<String> = review["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect();
    let now = Timestamp::now();
    let verified = call.server.tokens.verify(&call.server.store, text(review, "/spec/token"), &audiences, now);
    Ok(match verified {
        Ok(user) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": call.server.tokens.audiences(&audiences)})
        }
        Err(error) => json!({"user": {}, "error": format!("invalid bearer token, {error}")}),
    })
}
