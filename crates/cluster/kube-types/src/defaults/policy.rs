//! Defaults of access, admission, limits and extension objects.

use super::{Fields, child, each, ensure, put, text};
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn role_binding(fields: &mut Fields) {
    if let Some(role) = ensure(fields, "roleRef") {
        put(role, "apiGroup", RBAC);
    }
    for subject in each(fields, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            put(subject, "apiGroup", RBAC);
        }
    }
}

/// A container's default limit is its maximum, its default request its default limit, else its minimum.
pub(super) fn limit_range(fields: &mut Fields) {
    let Some(spec) = child(fields, "spec") else {
        return;
    };
    for item in each(spec, "limits").filter(|item| text(item, "type") == "Container") {
        inherit(item, "max", "default");
        inherit(item, "default", "defaultRequest");
        inherit(item, "min", "defaultRequest");
    }
}

fn inherit(item: &mut Fields, from: &str, to: &str) {
    let Some(source) = item.get(from).and_then(Value::as_object).cloned() else {
        return;
    };
    let Some(target) = ensure(item, to) else {
        return;
    };
    for (name, amount) in source {
        put(target, &name, amount);
    }
}

pub(super) fn admission(fields: &mut Fields, kind: &str) {
    match kind {
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            for hook in each(fields, "webhooks") {
                webhook(hook);
                if kind == "MutatingWebhookConfiguration" {
                    put(hook, "reinvocationPolicy", "Never");
                }
            }
        }
        "MutatingAdmissionPolicy" | "ValidatingAdmissionPolicy" => {
            let Some(spec) = ensure(fields, "spec") else {
                return;
            };
            put(spec, "failurePolicy", "Fail");
            if let Some(matches) = child(spec, "matchConstraints") {
                match_resources(matches);
            }
        }
        _ => {
            if let Some(matches) = child(fields, "spec").and_then(|spec| child(spec, "matchResources")) {
                match_resources(matches);
            }
        }
    }
}

fn webhook(hook: &mut Fields) {
    put(hook, "failurePolicy", "Fail");
    put(hook, "matchPolicy", "Equivalent");
    put(hook, "namespaceSelector", json!({}));
    put(hook, "objectSelector", json!({}));
    put(hook, "timeoutSeconds", 10);
    for rule in each(hook, "rules") {
        put(rule, "scope", "*");
    }
    if let Some(service) = child(hook, "clientConfig").and_then(|config| child(config, "service")) {
        put(service, "port", 443);
    }
}

fn match_resources(matches: &mut Fields) {
    put(matches, "matchPolicy", "Equivalent");
    put(matches, "namespaceSelector", json!({}));
    put(matches, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in each(matches, list) {
            put(rule, "scope", "*");
        }
    }
}

pub(super) fn custom_resource_definition(fields: &mut Fields) {
    let Some(spec) = ensure(fields, "spec") else {
        return;
    };
    if let Some(names) = ensure(spec, "names") {
        let kind = text(names, "kind").to_owned();
        put(names, "singular", kind.to_lowercase());
        put(names, "listKind", format!("{kind}List"));
    }
    if let Some(conversion) = ensure(spec, "conversion") {
        put(conversion, "strategy", "None");
        if let Some(service) =
            child(conversion, "webhook").and_then(|w| child(w, "clientConfig")).and_then(|c| child(c, "service"))
        {
            put(service, "port", 443);
        }
    }
}

pub(super) fn api_service(fields: &mut Fields) {
    if let Some(service) = child(fields, "spec").and_then(|spec| child(spec, "service")) {
        put(service, "port", 443);
    }
}

pub(super) fn flow_control(fields: &mut Fields, kind: &str) {
    let Some(spec) = ensure(fields, "spec") else {
        return;
    };
    match kind {
        "FlowSchema" => {
            put(spec, "matchingPrecedence", 1000);
            for rule in each(spec, "rules") {
                for inner in each(rule, "resourceRules") {
                    put(inner, "clusterScope", false);
                }
            }
        }
        _ if text(spec, "type") == "Limited" => {
            let Some(limited) = ensure(spec, "limited") else {
                return;
            };
            put(limited, "nominalConcurrencyShares", 30);
            put(limited, "lendablePercent", 0);
            if let Some(queuing) = child(limited, "limitResponse").and_then(|response| child(response, "queuing")) {
                put(queuing, "queues", 64);
                put(queuing, "handSize", 8);
                put(queuing, "queueLengthLimit", 50);
            }
        }
        _ => {
            if let Some(exempt) = ensure(spec, "exempt") {
                put(exempt, "nominalConcurrencyShares", 0);
                put(exempt, "lendablePercent", 0);
            }
        }
    }
}
