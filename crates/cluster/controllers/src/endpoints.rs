//! EndpointSlices and Endpoints: which pods stand behind a Service, and whether they take new connections.
//!
//! Called by the controller manager's shell for one Service and the pods of its namespace. The proxy and DNS act on
//! the slices, so a pod that is being deleted is not ready here from the first pass that sees it.
//! Invariants: a slice has at most 100 endpoints, all of one family and with one set of ports; an endpoint stays in
//! its slice for as long as it exists; without a change there is no action.

use crate::selection::{self, Labels};
use crate::{owners, pods};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as LegacyPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const LEGACY_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const SLICE_SIZE: usize = 100;
/// The legacy object is cut at this many addresses.
const LEGACY_SIZE: usize = 1000;

pub struct View<'a> {
    pub service: &'a Service,
    pub pods: &'a [Arc<Pod>],
    /// The slices that this controller made for the Service.
    pub slices: &'a [Arc<EndpointSlice>],
    pub endpoints: Option<&'a Endpoints>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    CreateSlice(Box<EndpointSlice>),
    UpdateSlice(Box<EndpointSlice>),
    DeleteSlice(Arc<EndpointSlice>),
    CreateEndpoints(Box<Endpoints>),
    UpdateEndpoints(Box<Endpoints>),
}

/// Nothing for a Service without a selector (its endpoints are the user's) or of type ExternalName.
pub fn decide(view: &View<'_>) -> Vec<Action> {
    let Some(spec) = view.service.spec.as_ref() else {
        return Vec::new();
    };
    let selector = spec.selector.as_ref().filter(|s| !s.is_empty());
    let Some(selector) = selector.filter(|_| spec.type_.as_deref() != Some("ExternalName")) else {
        return Vec::new();
    };
    if view.service.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let members = members(view, selector);
    let mut actions = slices(view, &members);
    actions.extend(legacy(view, &members));
    actions
}

/// One pod behind the Service, with the ports that it serves on.
struct Member<'a> {
    pod: &'a Pod,
    ip: &'a str,
    ports: Vec<EndpointPort>,
    serving: bool,
    ready: bool,
}

fn members<'a>(view: &View<'a>, selector: &Labels) -> Vec<Member<'a>> {
    let spec = view.service.spec.as_ref();
    let publish_all = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let mut members = Vec::new();
    for pod in view.pods {
        let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).filter(|ip| !ip.is_empty());
        let Some(ip) = ip.filter(|_| !pods::is_finished(pod)) else {
            continue;
        };
        if !selection::matches_map(selector, pod.metadata.labels.as_ref()) {
            continue;
        }
        let serving = pods::is_ready(pod);
        members.push(Member {
            pod,
            ip,
            ports: ports.iter().filter_map(|port| resolve(port, pod)).collect(),
            serving,
            ready: publish_all || (serving && !pods::is_terminating(pod)),
        });
    }
    members.sort_by_key(|m| (m.pod.metadata.creation_timestamp.as_ref().map(|t| t.0), &m.pod.metadata.name));
    members
}

/// The Service's port as this pod serves it; None when the pod has no port of that name.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, protocol)?,
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol.to_owned()),
        app_protocol: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let containers = pod.spec.as_ref()?.containers.iter();
    let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
    let same = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
        p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    ports.find(same).map(|p| p.container_port)
}

fn family(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

type GroupKey = (&'static str, String);

/// Ports in a form that can be compared and ordered.
fn port_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<String> =
        ports.iter().map(|p| format!("{:?}/{:?}/{:?}/{:?}", p.name, p.port, p.protocol, p.app_protocol)).collect();
    keys.sort();
    keys.join(",")
}

fn slices(view: &View<'_>, members: &[Member<'_>]) -> Vec<Action> {
    let mut groups: BTreeMap<GroupKey, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for member in members {
        let key = (family(member.ip), port_key(&member.ports));
        let group = groups.entry(key).or_insert_with(|| (member.ports.clone(), Vec::new()));
        group.1.push(endpoint(view.service, member));
    }
    if groups.is_empty() {
        // One empty slice says: looked at, nobody there.
        let none = (Vec::new(), Vec::new());
        groups.insert((service_family(view.service), String::new()), none);
    }
    let mut actions = Vec::new();
    let mut existing: BTreeMap<GroupKey, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in view.slices {
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        let key = (family, port_key(slice.ports.as_deref().unwrap_or_default()));
        if groups.contains_key(&key) {
            existing.entry(key).or_default().push(slice);
        } else {
            actions.push(Action::DeleteSlice(slice.clone()));
        }
    }
    for (key, (ports, wanted)) in groups {
        let slices = existing.remove(&key).unwrap_or_default();
        actions.extend(group_actions(view.service, key.0, &ports, wanted, &slices));
    }
    actions
}

/// Keeps every endpoint where it is, fills what is free, makes new slices for the rest.
fn group_actions(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    mut wanted: Vec<Endpoint>,
    slices: &[&Arc<EndpointSlice>],
) -> Vec<Action> {
    let mut contents: Vec<Vec<Endpoint>> = Vec::new();
    for slice in slices {
        let kept = slice.endpoints.iter().flatten();
        let kept = kept.filter_map(|old| {
            let at = wanted.iter().position(|new| identity(new) == identity(old))?;
            Some(wanted.remove(at))
        });
        contents.push(kept.take(SLICE_SIZE).collect());
    }
    for content in &mut contents {
        let free = SLICE_SIZE - content.len();
        content.extend(wanted.drain(..free.min(wanted.len())));
    }
    let mut actions = Vec::new();
    let empty_all = contents.iter().all(Vec::is_empty) && wanted.is_empty();
    for (position, (slice, content)) in slices.iter().zip(contents).enumerate() {
        if content.is_empty() && !(empty_all && position == 0) {
            actions.push(Action::DeleteSlice(Arc::clone(slice)));
            continue;
        }
        let changed = fill(EndpointSlice::clone(slice), service, ports, content);
        if changed != ***slice {
            actions.push(Action::UpdateSlice(Box::new(changed)));
        }
    }
    if slices.is_empty() && wanted.is_empty() {
        actions.push(Action::CreateSlice(Box::new(fill(fresh(service, family), service, ports, Vec::new()))));
    }
    while !wanted.is_empty() {
        let rest = wanted.split_off(SLICE_SIZE.min(wanted.len()));
        actions.push(Action::CreateSlice(Box::new(fill(fresh(service, family), service, ports, wanted))));
        wanted = rest;
    }
    actions
}

/// An endpoint is the same as long as it is the same pod at the same address.
fn identity(endpoint: &Endpoint) -> (Option<&str>, Option<&String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.as_deref());
    (uid, endpoint.addresses.first())
}

fn fresh(service: &Service, family: &str) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.metadata.name.as_deref().unwrap_or_default())),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![owners::reference::<Service>(&service.metadata)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(Vec::new()),
    }
}

fn fill(mut slice: EndpointSlice, service: &Service, ports: &[EndpointPort], content: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    slice.metadata.labels = Some(labels);
    // The server may keep an empty list or leave it out: either is as good, so what stands there is left alone.
    if slice.ports.as_deref().unwrap_or_default() != ports {
        slice.ports = Some(ports.to_vec());
    }
    if slice.endpoints.as_deref().unwrap_or_default() != content {
        slice.endpoints = Some(content);
    }
    slice
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

fn service_family(service: &Service) -> &'static str {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.as_ref());
    if families.and_then(|f| f.first()).is_some_and(|f| f == "IPv6") { "IPv6" } else { "IPv4" }
}

fn endpoint(service: &Service, member: &Member<'_>) -> Endpoint {
    Endpoint {
        addresses: vec![member.ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(member.ready),
            serving: Some(member.serving),
            terminating: Some(pods::is_terminating(member.pod)),
        }),
        hostname: hostname(service, member.pod),
        node_name: pods::node_name(member.pod).map(str::to_owned),
        target_ref: Some(target(member.pod)),
        ..Endpoint::default()
    }
}

/// Only pods that ask for a name below this Service have one.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    (spec.subdomain.is_some() && spec.subdomain == service.metadata.name).then(|| spec.hostname.clone())?
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn legacy(view: &View<'_>, members: &[Member<'_>]) -> Option<Action> {
    let publish_all = view.service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let mut subsets: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let live = members.iter().filter(|m| publish_all || !pods::is_terminating(m.pod));
    for member in live.take(LEGACY_SIZE) {
        let subset = subsets.entry(port_key(&member.ports)).or_insert_with(|| EndpointSubset {
            ports: Some(member.ports.iter().map(legacy_port).collect()),
            ..EndpointSubset::default()
        });
        let list = if member.ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(EndpointAddress {
            ip: member.ip.to_owned(),
            hostname: hostname(view.service, member.pod),
            node_name: pods::node_name(member.pod).map(str::to_owned),
            target_ref: Some(target(member.pod)),
        });
    }
    let subsets: Vec<EndpointSubset> = subsets.into_values().collect();
    let mut labels = view.service.metadata.labels.clone().unwrap_or_default();
    labels.insert(LEGACY_MANAGED_BY.into(), "endpoint-controller".into());
    if is_headless(view.service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    let mut changed = view.endpoints.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: view.service.metadata.name.clone(),
            namespace: view.service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    changed.metadata.labels = Some(labels);
    if changed.subsets.as_deref().unwrap_or_default() != subsets {
        changed.subsets = Some(subsets);
    }
    match view.endpoints {
        None => Some(Action::CreateEndpoints(Box::new(changed))),
        Some(old) if *old != changed => Some(Action::UpdateEndpoints(Box::new(changed))),
        Some(_) => None,
    }
}

fn legacy_port(port: &EndpointPort) -> LegacyPort {
    LegacyPort {
        name: port.name.clone().filter(|n| !n.is_empty()),
        port: port.port.unwrap_or_default(),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

#[cfg(test)]
mod tests;
