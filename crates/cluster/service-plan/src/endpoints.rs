//! Which endpoints get traffic: the rules of ready, serving and terminating.

use crate::Protocol;
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Where a connection may be led.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    pub address: Ipv4Addr,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    /// On its way out, still answering: used only when nobody is ready.
    Draining,
    Unusable,
}

fn condition(endpoint: &Endpoint) -> Condition {
    let conditions = endpoint.conditions.as_ref();
    // An absent condition means "unknown", to be read as ready, and serving as ready.
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving, terminating) {
        (true, _, _) => Condition::Ready,
        (false, true, true) => Condition::Draining,
        (false, _, _) => Condition::Unusable,
    }
}

/// The targets of one service port; with `node`, only those on that node. Sorted, without duplicates.
pub fn pick(slices: &[impl AsRef<EndpointSlice>], port: &ServicePort, node: Option<&str>) -> Vec<Target> {
    let (mut ready, mut draining) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().map(AsRef::as_ref).filter(|s| s.address_type == "IPv4") {
        let Some(number) = slice.ports.iter().flatten().find_map(|p| matching_port(p, port)) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten().filter(|e| node.is_none() || e.node_name.as_deref() == node) {
            // Only the first address of an endpoint counts: the others are the same backend.
            let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else {
                continue;
            };
            let target = Target { address, port: number };
            match condition(endpoint) {
                Condition::Ready => ready.insert(target),
                Condition::Draining => draining.insert(target),
                Condition::Unusable => false,
            };
        }
    }
    if ready.is_empty() { draining } else { ready }.into_iter().collect()
}

/// Ports are joined by name and protocol; an unnamed port is the empty name.
fn matching_port(of_slice: &EndpointPort, of_service: &ServicePort) -> Option<u16> {
    let same_name = of_slice.name.as_deref().unwrap_or_default() == of_service.name.as_deref().unwrap_or_default();
    let same_protocol =
        Protocol::parse(of_slice.protocol.as_deref()) == Protocol::parse(of_service.protocol.as_deref());
    (same_name && same_protocol)
        .then_some(of_slice.port)
        .flatten()
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0)
}

/// Endpoints that DNS publishes: ready ones, or all where the service wants it so.
pub(crate) fn published(slice: &EndpointSlice, all: bool) -> impl Iterator<Item = (&Endpoint, Ipv4Addr)> {
    let usable = slice.address_type == "IPv4";
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(move |e| usable && (all || condition(e) == Condition::Ready))
        .filter_map(|e| Some((e, e.addresses.first()?.parse().ok()?)))
}
