//! Services, endpoints, ingresses, network policies.

use super::container::protocol;
use super::look::{At, unique};
use super::selectors::label_selector;
use super::{Errors, metadata};
use crate::field::FieldError;
use crate::names;
use serde_json::Value;
use std::net::IpAddr;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(super) fn service(spec: At<'_>, errors: &mut Errors) {
    let kind = spec.child("type");
    kind.one_of(&TYPES, errors);
    let ports = spec.child("ports");
    let headless = spec.child("clusterIP").text() == "None";
    if ports.is_empty() && !headless && kind.text() != "ExternalName" {
        errors.push(FieldError::required(ports.path.clone(), ""));
    }
    match kind.text() {
        "ExternalName" => {
            let name = spec.child("externalName");
            if name.required(errors) {
                let plain = name.text().trim_end_matches('.');
                errors.extend(names::dns1123_subdomain(plain).into_iter().map(|problem| name.invalid(problem)));
            }
        }
        "LoadBalancer" | "NodePort" if headless => {
            let ip = spec.child("clusterIP");
            errors.push(ip.invalid(format!("may not be set to 'None' for {} services", kind.text())));
        }
        _ => {}
    }
    service_ports(&ports, kind.text(), errors);
    metadata::labels(&spec.child("selector"), errors);
    spec.child("sessionAffinity").one_of(&["ClientIP", "None"], errors);
    for ip in spec.child("externalIPs").items() {
        address(&ip, errors);
    }
    for field in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        let policy = spec.child(field);
        if policy.is_set() {
            policy.one_of(&["Cluster", "Local"], errors);
        }
    }
    let ip = spec.child("clusterIP");
    if !ip.is_empty() && !headless {
        address(&ip, errors);
    }
}

fn service_ports(ports: &At<'_>, kind: &str, errors: &mut Errors) {
    let several = ports.value.as_array().is_some_and(|list| list.len() > 1);
    let (mut seen_names, mut seen_ports, mut seen_nodes) =
        (Vec::new(), Vec::<(Option<i64>, &str)>::new(), Vec::<(i64, &str)>::new());
    for port in ports.items() {
        let (name, number, node) = (port.child("name"), port.child("port"), port.child("nodePort"));
        if name.is_empty() && several {
            errors.push(FieldError::required(name.path.clone(), ""));
        } else if !name.is_empty() {
            name.check(names::dns1123_label, errors);
            unique(&mut seen_names, &name, errors);
        }
        number.port_number(errors);
        protocol(&port.child("protocol"), errors);
        port.child("targetPort").port(errors);
        let proto = port.child("protocol").text();
        if seen_ports.contains(&(number.number(), proto)) {
            errors.push(FieldError::duplicate(&port.path, port.value.clone()));
        }
        seen_ports.push((number.number(), proto));
        let Some(node_port) = node.number().filter(|n| *n != 0) else {
            continue;
        };
        if kind == "ClusterIP" {
            errors.push(FieldError::forbidden(&node.path, "may not be used when `type` is 'ClusterIP'"));
        } else if seen_nodes.contains(&(node_port, proto)) {
            errors.push(FieldError::duplicate(&node.path, node_port));
        }
        seen_nodes.push((node_port, proto));
    }
}

/// A cluster address, once given, stays for as long as the service keeps a type that has one.
pub(super) fn service_change(new: &Value, old: &Value, errors: &mut Errors) {
    let (before, after) = (At::root(old).child("spec"), At::root(new).child("spec"));
    let external = |spec: &At<'_>| spec.child("type").text() == "ExternalName";
    let (had, has) = (before.child("clusterIP"), after.child("clusterIP"));
    if !external(&before) && !external(&after) && !had.is_empty() && had.text() != has.text() {
        let detail = if has.is_empty() { "primary clusterIP can not be unset" } else { "may not change once set" };
        let list = At::root(new).down("spec.clusterIPs");
        errors.push(FieldError::invalid(format!("{}[0]", list.path), has.text(), detail));
    }
}

fn address(ip: &At<'_>, errors: &mut Errors) {
    if ip.text().parse::<IpAddr>().is_err() {
        errors.push(ip.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
}

pub(super) fn endpoints(object: &Value, errors: &mut Errors) {
    for subset in At::root(object).child("subsets").items() {
        let (ready, waiting) = (subset.child("addresses"), subset.child("notReadyAddresses"));
        if ready.is_empty() && waiting.is_empty() {
            errors.push(FieldError::required(&subset.path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for found in ready.items().chain(waiting.items()) {
            address(&found.child("ip"), errors);
        }
        let several = subset.child("ports").value.as_array().is_some_and(|list| list.len() > 1);
        for port in subset.child("ports").items() {
            if several {
                port.child("name").required(errors);
            }
            port.child("port").port_number(errors);
            protocol(&port.child("protocol"), errors);
        }
    }
}

pub(super) fn endpoint_slice(object: &Value, errors: &mut Errors) {
    let root = At::root(object);
    let kind = root.child("addressType");
    if kind.required(errors) {
        kind.one_of(&["FQDN", "IPv4", "IPv6"], errors);
    }
    let endpoints = root.child("endpoints");
    if endpoints.value.as_array().is_some_and(|list| list.len() > 1000) {
        errors.push(FieldError::too_many(&endpoints.path, endpoints.value.as_array().map_or(0, Vec::len), 1000));
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.child("addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(addresses.path.clone(), "must contain at least 1 item"));
        }
        for found in addresses.items().filter(|_| kind.text() != "FQDN") {
            address(&found, errors);
        }
    }
    let mut seen = Vec::new();
    for port in root.child("ports").items() {
        unique(&mut seen, &port.child("name"), errors);
        protocol(&port.child("protocol"), errors);
    }
}

pub(super) fn ingress(spec: At<'_>, errors: &mut Errors) {
    let (rules, default) = (spec.child("rules"), spec.child("defaultBackend"));
    if rules.is_empty() && !default.is_set() {
        errors.push(spec.invalid("either `defaultBackend` or `rules` must be specified"));
    }
    if default.is_set() {
        backend(&default, errors);
    }
    for rule in rules.items() {
        let host = rule.child("host");
        if !host.is_empty() {
            if host.text().parse::<IpAddr>().is_ok() {
                errors.push(host.invalid("must be a DNS name, not an IP address"));
            } else if host.text().contains('*') {
                host.check(names::wildcard_subdomain, errors);
            } else {
                host.check(names::dns1123_subdomain, errors);
            }
        }
        if rule.child("http").is_set() && rule.down("http.paths").is_empty() {
            errors.push(FieldError::required(rule.down("http.paths").path, ""));
        }
        for path in rule.down("http.paths").items() {
            ingress_path(&path, errors);
        }
    }
}

fn ingress_path(path: &At<'_>, errors: &mut Errors) {
    let (kind, text) = (path.child("pathType"), path.child("path"));
    if !kind.is_set() {
        errors.push(FieldError::required(kind.path.clone(), "pathType must be specified"));
    } else {
        kind.one_of(&["Exact", "ImplementationSpecific", "Prefix"], errors);
    }
    if matches!(kind.text(), "Exact" | "Prefix") && !text.text().starts_with('/') {
        errors.push(text.invalid("must be an absolute path"));
    }
    backend(&path.child("backend"), errors);
}

fn backend(backend: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.child("service"), backend.child("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => {
            errors.push(FieldError::invalid(&backend.path, "", "cannot set both resource and service backends"))
        }
        (false, false) => errors.push(FieldError::required(backend.path.clone(), "port name or number is required")),
        (false, true) => {}
        (true, false) => {
            let name = service.child("name");
            if name.required(errors) {
                name.check(names::dns1035_label, errors);
            }
            let (by_name, by_number) = (service.down("port.name"), service.down("port.number"));
            match (by_name.is_empty(), by_number.number().unwrap_or(0) == 0) {
                (true, true) => errors.push(FieldError::required(&service.path, "port name or number is required")),
                (false, false) => {
                    errors.push(FieldError::invalid(&service.path, "", "cannot set both port name & port number"))
                }
                (false, true) => by_name.check(names::port_name, errors),
                (true, false) => by_number.port_number(errors),
            }
        }
    }
}

pub(super) fn network_policy(spec: At<'_>, errors: &mut Errors) {
    label_selector(&spec.child("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.child(direction).items() {
            for port in rule.child("ports").items() {
                if port.child("port").is_set() {
                    port.child("port").port(errors);
                }
                protocol(&port.child("protocol"), errors);
            }
            for peer in rule.child(peers).items() {
                policy_peer(&peer, errors);
            }
        }
    }
    for kind in spec.child("policyTypes").items() {
        kind.one_of(&["Egress", "Ingress"], errors);
    }
}

fn policy_peer(peer: &At<'_>, errors: &mut Errors) {
    let (pods, namespaces, block) = (peer.child("podSelector"), peer.child("namespaceSelector"), peer.child("ipBlock"));
    for selector in [&pods, &namespaces] {
        label_selector(selector, errors);
    }
    match (pods.is_set() || namespaces.is_set(), block.is_set()) {
        (false, false) => errors.push(FieldError::required(&peer.path, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(&peer.path, "may not specify both ipBlock and another peer")),
        (true, false) => {}
        (false, true) => {
            let cidr = block.child("cidr");
            if cidr.required(errors) && !is_cidr(cidr.text()) {
                errors.push(cidr.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
            }
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((ip, length)) = text.split_once('/') else {
        return false;
    };
    let most = match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|n| n <= most)
}
