//! Defaults of services, endpoints and network policies.

use super::{Fields, child, each, ensure, put, text};
use serde_json::{Value, json};

pub(super) fn service(fields: &mut Fields) {
    let Some(spec) = ensure(fields, "spec") else {
        return;
    };
    put(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            if let Some(client) = ensure(spec, "sessionAffinityConfig").and_then(|config| ensure(config, "clientIP")) {
                put(client, "timeoutSeconds", 10_800);
            }
        }
        _ => {
            spec.remove("sessionAffinityConfig");
        }
    }
    put(spec, "type", "ClusterIP");
    each(spec, "ports").for_each(service_port);
    let kind = text(spec, "type").to_owned();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external {
        put(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        put(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        put(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// A port without a target means the same number in the pod.
fn service_port(port: &mut Fields) {
    put(port, "protocol", "TCP");
    if port.get("targetPort") == Some(&json!(0)) {
        port.remove("targetPort");
    }
    if let Some(number) = port.get("port").cloned() {
        put(port, "targetPort", number);
    }
}

pub(super) fn endpoints(fields: &mut Fields) {
    for subset in each(fields, "subsets") {
        for port in each(subset, "ports") {
            put(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(fields: &mut Fields) {
    for port in each(fields, "ports") {
        put(port, "protocol", "TCP");
        port.entry("name").or_insert_with(|| "".into());
    }
}

pub(super) fn network_policy(fields: &mut Fields) {
    let Some(spec) = ensure(fields, "spec") else {
        return;
    };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                put(port, "protocol", "TCP");
            }
        }
    }
    let has_types = spec.get("policyTypes").and_then(Value::as_array).is_some_and(|types| !types.is_empty());
    if !has_types {
        let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
        let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

pub(super) fn ingress_class(fields: &mut Fields) {
    if let Some(parameters) = child(fields, "spec").and_then(|spec| child(spec, "parameters")) {
        put(parameters, "scope", "Cluster");
    }
}
