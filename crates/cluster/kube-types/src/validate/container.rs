//! Containers: names, images, ports, environment, resources, probes, mounts.

use super::Errors;
use super::look::{At, unique};
use crate::field::FieldError;
use crate::names;
use crate::quantity::Quantity;
use serde_json::Value;

/// What the pod says that its containers refer to.
pub(super) struct PodFacts<'v> {
    pub(super) volumes: Vec<&'v str>,
    pub(super) host_network: bool,
}

/// Which list a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Main,
}

pub(super) fn container(container: &At<'_>, role: Role, pod: &PodFacts<'_>, errors: &mut Errors) {
    let name = container.child("name");
    if name.required(errors) {
        name.check(names::dns1123_label, errors);
    }
    image(&container.child("image"), errors);
    container.child("imagePullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
    container.child("terminationMessagePolicy").one_of(&["File", "FallbackToLogsOnError"], errors);
    ports(&container.child("ports"), pod, errors);
    environment(container, errors);
    mounts(&container.child("volumeMounts"), pod, errors);
    resources(&container.child("resources"), errors);
    let restartable = container.child("restartPolicy").text() == "Always";
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let found = container.child(kind);
        if found.is_set() && role == Role::Init && !restartable {
            errors.push(FieldError::forbidden(
                found.path,
                "may not be set for init containers without restartPolicy=Always",
            ));
        } else if found.is_set() {
            probe(&found, kind, errors);
        }
    }
    let lifecycle = container.child("lifecycle");
    if lifecycle.is_set() && role == Role::Init && !restartable {
        errors.push(FieldError::forbidden(
            lifecycle.path,
            "may not be set for init containers without restartPolicy=Always",
        ));
    } else {
        for hook in ["postStart", "preStop"] {
            let found = lifecycle.child(hook);
            if found.is_set() {
                handler(&found, &["exec", "httpGet", "tcpSocket", "sleep"], errors);
            }
        }
    }
}

fn image(image: &At<'_>, errors: &mut Errors) {
    if image.required(errors) && image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
}

fn ports(ports: &At<'_>, pod: &PodFacts<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for port in ports.items() {
        let (name, number, host) = (port.child("name"), port.child("containerPort"), port.child("hostPort"));
        if !name.is_empty() {
            name.check(names::port_name, errors);
            unique(&mut seen, &name, errors);
        }
        match number.number() {
            None | Some(0) => errors.push(FieldError::required(number.path.clone(), "")),
            Some(_) => number.port_number(errors),
        }
        if host.number().is_some_and(|n| n != 0) {
            host.port_number(errors);
            if pod.host_network && host.number() != number.number() {
                errors.push(number.invalid("must match `hostPort` when `hostNetwork` is true"));
            }
        }
        protocol(&port.child("protocol"), errors);
    }
}

pub(super) fn protocol(protocol: &At<'_>, errors: &mut Errors) {
    if protocol.required(errors) {
        protocol.one_of(&["SCTP", "TCP", "UDP"], errors);
    }
}

fn environment(container: &At<'_>, errors: &mut Errors) {
    for variable in container.child("env").items() {
        let name = variable.child("name");
        if name.required(errors) {
            name.check(names::env_var, errors);
        }
        let from = variable.child("valueFrom");
        if from.is_set() {
            value_source(&variable, &from, errors);
        }
    }
    for source in container.child("envFrom").items() {
        let kinds = ["configMapRef", "secretRef"].map(|kind| source.child(kind));
        let set: Vec<&At<'_>> = kinds.iter().filter(|kind| kind.is_set()).collect();
        match set.as_slice() {
            [] => errors.push(source.invalid("must specify one of: `configMapRef` or `secretRef`")),
            [only] => {
                only.child("name").required(errors);
            }
            _ => errors.push(source.invalid("may not have more than one field specified at a time")),
        }
    }
}

fn value_source(variable: &At<'_>, from: &At<'_>, errors: &mut Errors) {
    const KINDS: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let set: Vec<&str> = KINDS.into_iter().filter(|kind| from.child(kind).is_set()).collect();
    if !variable.child("value").is_empty() && !set.is_empty() {
        errors.push(FieldError::invalid(&from.path, "", "may not be specified when `value` is not empty"));
    }
    match set.as_slice() {
        [] => errors.push(FieldError::invalid(
            &from.path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        [only] => {
            let reference = from.child(only);
            match *only {
                "fieldRef" => {
                    reference.child("fieldPath").required(errors);
                }
                "resourceFieldRef" => {
                    reference.child("resource").required(errors);
                }
                "configMapKeyRef" | "secretKeyRef" => {
                    reference.child("name").required(errors);
                    let key = reference.child("key");
                    if key.required(errors) {
                        key.check(names::config_key, errors);
                    }
                }
                _ => {}
            }
        }
        _ => errors.push(FieldError::invalid(&from.path, "", "may not have more than one field specified at a time")),
    }
}

fn mounts(mounts: &At<'_>, pod: &PodFacts<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for mount in mounts.items() {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        if name.required(errors) && !pod.volumes.contains(&name.text()) {
            errors.push(FieldError::not_found(name.path.clone(), name.text()));
        }
        if path.required(errors) {
            if seen.contains(&path.text()) {
                errors.push(path.invalid("must be unique"));
            }
            seen.push(path.text());
        }
        let sub = mount.child("subPath");
        if sub.text().starts_with('/') {
            errors.push(sub.invalid("must be a relative path"));
        }
        if sub.text().split('/').any(|part| part == "..") {
            errors.push(sub.invalid("must not contain '..'"));
        }
    }
}

/// Amounts are quantities, and no request is above its limit.
pub(super) fn resources(resources: &At<'_>, errors: &mut Errors) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    for (_, amount) in limits.entries() {
        resource_amount(&amount, errors);
    }
    for (name, request) in requests.entries() {
        let Some(asked) = resource_amount(&request, errors) else {
            continue;
        };
        let limit = limits.value.get(name).and_then(Value::as_str);
        if let Some(most) = limit.and_then(|text| crate::quantity::parse(text).ok())
            && asked > most
        {
            let detail = format!("must be less than or equal to {name} limit of {most}");
            errors.push(FieldError::invalid(&requests.path, request.text(), detail));
        }
    }
}

fn resource_amount(amount: &At<'_>, errors: &mut Errors) -> Option<Quantity> {
    let name = amount.path.rsplit_once('[').map_or("", |(_, name)| name.trim_end_matches(']'));
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !standard && !name.contains('/') {
        errors.push(FieldError::invalid(&amount.path, name, "must be a standard resource type or fully qualified"));
        errors.push(FieldError::invalid(&amount.path, name, "must be a standard resource for containers"));
    } else {
        errors.extend(
            names::qualified_name(name).into_iter().map(|problem| FieldError::invalid(&amount.path, name, problem)),
        );
    }
    amount.quantity(errors)
}

fn probe(probe: &At<'_>, kind: &str, errors: &mut Errors) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.child(field).not_negative(errors);
    }
    let successes = probe.child("successThreshold");
    if kind != "readinessProbe" && successes.number().is_some_and(|n| n > 1) {
        errors.push(successes.invalid("must be 1"));
    }
}

/// Exactly one way to ask.
fn handler(owner: &At<'_>, kinds: &[&str], errors: &mut Errors) {
    let mut found = 0;
    for kind in kinds {
        let action = owner.child(kind);
        if !action.is_set() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.push(FieldError::forbidden(&action.path, "may not specify more than 1 handler type"));
            continue;
        }
        match *kind {
            "exec" => {
                action.child("command").required(errors);
            }
            "httpGet" => {
                action.child("path").required(errors);
                action.child("port").port(errors);
                action.child("scheme").one_of(&["HTTP", "HTTPS"], errors);
            }
            "tcpSocket" => action.child("port").port(errors),
            "grpc" => action.child("port").port_number(errors),
            _ => {}
        }
    }
    if found == 0 {
        errors.push(FieldError::required(&owner.path, "must specify a handler type"));
    }
}
