//! Services that lead nowhere, ingresses that cannot be served.

use serde_json::Value;

use super::explanation::{Cause, Finding, counted, namespace_option};
use super::workload::{ports, ready, troubled_pods};
use crate::facts::{Facts, ObjectName, list, number, selects, text};

/// The pods that a service means.
pub(crate) fn selected<'a>(service: &'a Value, facts: &'a Facts) -> impl Iterator<Item = &'a Value> {
    facts
        .list("Pod", text(service, "/metadata/namespace"))
        .filter(|pod| selects(service.pointer("/spec/selector"), pod))
        .filter(|pod| !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed"))
}

pub(crate) fn service(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    if text(object, "/spec/type") == "ExternalName" {
        return Vec::new();
    }
    if object["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty) {
        return without_selector(subject, facts);
    }
    let pods: Vec<&Value> = selected(object, facts).collect();
    if pods.is_empty() {
        return vec![selects_nothing(subject, object, facts)];
    }
    let mut found = port_mismatches(subject, object, &pods);
    let ready_pods = pods.iter().filter(|pod| ready(pod)).count();
    if ready_pods == 0 {
        found.push(
            Finding::new(
                subject,
                Cause::NoReadyEndpoints,
                format!("none of its {} is ready, so it refuses connections", counted(pods.len(), "pod")),
            )
            .because(troubled_pods(subject, pods.iter().copied(), facts)),
        );
    }
    if text(object, "/spec/type") == "LoadBalancer" && list(object, "/status/loadBalancer/ingress").next().is_none() {
        found.push(
            Finding::new(subject, Cause::AddressPending, "it has no external address yet")
                .event(facts.events(subject).last()),
        );
    }
    found
}

fn without_selector(subject: &ObjectName, facts: &Facts) -> Vec<Finding> {
    let has_endpoints = facts
        .list("EndpointSlice", &subject.namespace)
        .filter(|slice| text(slice, "/metadata/labels/kubernetes.io~1service-name") == subject.name)
        .any(|slice| list(slice, "/endpoints").next().is_some());
    if has_endpoints {
        return Vec::new();
    }
    vec![Finding::new(
        subject,
        Cause::NoSelector,
        "it has no selector, and nobody has given it endpoints by hand: it leads nowhere",
    )]
}

fn selects_nothing(subject: &ObjectName, object: &Value, facts: &Facts) -> Finding {
    let selector = &object["spec"]["selector"];
    let finding = Finding::new(subject, Cause::SelectsNothing, "its selector matches no pod")
        .seen("spec", format!("selector: {selector}"));
    // The usual slip: one label of several, or one letter of it.
    let near = facts.list("Pod", &subject.namespace).find_map(|pod| {
        let labels = pod["metadata"]["labels"].as_object()?;
        let wanted = selector.as_object()?;
        let same_keys = wanted.keys().any(|key| labels.contains_key(key));
        same_keys.then(|| format!("pod {} has labels {}", text(pod, "/metadata/name"), pod["metadata"]["labels"]))
    });
    let finding = match near {
        Some(near) => finding.seen("spec", near),
        None => finding,
    };
    finding.next(format!("kubectl get pods{} --show-labels", namespace_option(subject)))
}

/// Target ports that no pod declares. Only a named one cannot work; a number may be served without being declared.
fn port_mismatches(subject: &ObjectName, object: &Value, pods: &[&Value]) -> Vec<Finding> {
    let mut found = Vec::new();
    let declared: Vec<(i64, &str)> = pods.first().map(|pod| ports(pod)).unwrap_or_default();
    let shown = || {
        declared
            .iter()
            .map(|(number, name)| format!("{number} {name}").trim().to_owned())
            .collect::<Vec<_>>()
            .join(", ")
    };
    for port in list(object, "/spec/ports") {
        let target = &port["targetPort"];
        if let Some(name) = target.as_str()
            && !declared.iter().any(|(_, known)| *known == name)
        {
            found.push(
                Finding::new(
                    subject,
                    Cause::PortMismatch,
                    format!("its targetPort {name:?} is the name of no port of its pods"),
                )
                .seen("spec", format!("the pods declare: {}", shown())),
            );
        }
        let number = target.as_i64().unwrap_or_else(|| number(port, "/port"));
        if target.is_number() && !declared.is_empty() && !declared.iter().any(|(known, _)| *known == number) {
            found.push(
                Finding::new(
                    subject,
                    Cause::PortMismatch,
                    format!("its targetPort {number} is not among the ports that its pods declare"),
                )
                .seen("spec", format!("the pods declare: {}", shown()))
                .next(format!("kubectl patch {subject}{} --type json -p '[{{\"op\":\"replace\",\"path\":\"/spec/ports/0/targetPort\",\"value\":{}}}]'", namespace_option(subject), declared[0].0)),
            );
        }
    }
    found
}

pub(crate) fn ingress(subject: &ObjectName, object: &Value, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let paths = list(object, "/spec/rules").flat_map(|rule| list(rule, "/http/paths")).map(|path| &path["backend"]);
    let default = object.pointer("/spec/defaultBackend");
    for backend in paths.chain(default).map(|backend| &backend["service"]).filter(|service| !service.is_null()) {
        let name = ObjectName::new("Service", &subject.namespace, text(backend, "/name"));
        match facts.get(&name) {
            None => found.push(
                Finding::new(
                    subject,
                    Cause::BackendMissing,
                    format!("its backend service {:?} does not exist", name.name),
                )
                .next(format!("kubectl get services{}", namespace_option(subject))),
            ),
            Some(target) => {
                let port = &backend["port"];
                let known = list(target, "/spec/ports").any(|known| {
                    known["port"] == port["number"] || (!port["name"].is_null() && known["name"] == port["name"])
                });
                if !known {
                    found.push(Finding::new(
                        subject,
                        Cause::PortMismatch,
                        format!("its backend {name} has no port {port}"),
                    ));
                }
                found.extend(service(&name, target, facts));
            }
        }
    }
    for secret in list(object, "/spec/tls").map(|tls| text(tls, "/secretName")).filter(|name| !name.is_empty()) {
        if facts.exists("Secret", &subject.namespace, secret) == Some(false) {
            found.push(Finding::new(
                subject,
                Cause::TlsSecretMissing,
                format!("its TLS secret {secret:?} does not exist"),
            ));
        }
    }
    if text(object, "/spec/ingressClassName").is_empty()
        && list(object, "/status/loadBalancer/ingress").next().is_none()
        && found.is_empty()
    {
        found.push(
            Finding::new(subject, Cause::NoIngressClass, "it names no ingress class, and no controller has taken it")
                .next("kubectl get ingressclass"),
        );
    }
    found
}
