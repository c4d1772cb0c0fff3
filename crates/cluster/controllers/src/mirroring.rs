//! Endpoints that a user keeps by hand, mirrored into EndpointSlices, which the proxy and DNS read.
//!
//! Called by the controller manager's shell for the Endpoints of one Service. Invariants: only Endpoints of a Service
//! without a selector are mirrored; at most 1,000 addresses a subset; without a change there is no action.

use crate::endpoints::{MANAGED_BY, SERVICE_NAME};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::sync::Arc;

pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const MOST: usize = 1000;

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

pub fn is_mirrored(service: &Service, endpoints: &Endpoints) -> bool {
    let by_hand = service.spec.as_ref().is_none_or(|s| s.selector.as_ref().is_none_or(|s| s.is_empty()));
    let skip = endpoints.metadata.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
    let lock = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    by_hand && !skip && !lock
}

/// `slices` are those that this controller made for the Service.
pub fn decide(service: Option<&Service>, endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let source = service.zip(endpoints).filter(|(s, e)| is_mirrored(s, e)).map(|(_, e)| e);
    let mut wanted: Vec<EndpointSlice> = Vec::new();
    for subset in source.iter().flat_map(|e| e.subsets.iter().flatten()) {
        for family in ["IPv4", "IPv6"] {
            wanted.extend(source.and_then(|e| mirror(e, subset, family)));
        }
    }
    let mut actions = Vec::new();
    let mut left: Vec<&Arc<EndpointSlice>> = slices.iter().collect();
    for slice in wanted {
        let same_kind = |s: &&Arc<EndpointSlice>| s.address_type == slice.address_type && s.ports == slice.ports;
        let at =
            left.iter().position(same_kind).or_else(|| left.iter().position(|s| s.address_type == slice.address_type));
        match at.map(|at| left.remove(at)) {
            None => actions.push(Action::Create(Box::new(slice))),
            Some(old) => {
                let mut changed = EndpointSlice::clone(old);
                changed.metadata.labels = slice.metadata.labels;
                (changed.endpoints, changed.ports) = (slice.endpoints, slice.ports);
                if changed != **old {
                    actions.push(Action::Update(Box::new(changed)));
                }
            }
        }
    }
    actions.extend(left.into_iter().cloned().map(Action::Delete));
    actions
}

fn mirror(endpoints: &Endpoints, subset: &EndpointSubset, family: &str) -> Option<EndpointSlice> {
    let of_family = |a: &&EndpointAddress| a.ip.contains(':') == (family == "IPv6");
    let list = |all: &Option<Vec<EndpointAddress>>, ready| -> Vec<Endpoint> {
        all.iter().flatten().filter(of_family).map(|a| endpoint(a, ready)).collect()
    };
    let mut content = list(&subset.addresses, true);
    content.extend(list(&subset.not_ready_addresses, false));
    content.truncate(MOST);
    if content.is_empty() {
        return None;
    }
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let ports = subset.ports.iter().flatten().map(|p| EndpointPort {
        name: Some(p.name.clone().unwrap_or_default()),
        port: Some(p.port),
        protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: p.app_protocol.clone(),
    });
    Some(EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Endpoints".into(),
                uid: endpoints.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
                name,
            }]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(content),
        ports: Some(ports.collect()),
    })
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_kept_by_hand_are_mirrored_by_family_and_followed() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": {}})).unwrap();
        let mut endpoints: Endpoints = serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "n", "uid": "e"},
            "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 5432}]}]}))
        .unwrap();
        let actions = decide(Some(&service), Some(&endpoints), &[]);
        let slices: Vec<Arc<EndpointSlice>> = actions
            .into_iter()
            .map(|a| if let Action::Create(s) = a { Arc::new(*s) } else { panic!("{a:?}") })
            .collect();
        assert_eq!((slices[0].address_type.as_str(), slices[1].address_type.as_str()), ("IPv4", "IPv6"));
        let ready = |s: &EndpointSlice| -> Vec<Option<bool>> {
            s.endpoints.iter().flatten().map(|e| e.conditions.as_ref().unwrap().ready).collect()
        };
        assert_eq!(ready(&slices[0]), [Some(true), Some(false)]);
        assert!(decide(Some(&service), Some(&endpoints), &slices).is_empty(), "at rest");
        endpoints.subsets.as_mut().unwrap()[0].addresses.as_mut().unwrap().pop();
        let actions = decide(Some(&service), Some(&endpoints), &slices);
        assert!(matches!(&actions[..], [Action::Delete(s)] if s.address_type == "IPv6"), "{actions:?}");
        let selecting: Service =
            serde_json::from_value(json!({"metadata": {"name": "db"}, "spec": {"selector": {"a": "b"}}})).unwrap();
        assert_eq!(decide(Some(&selecting), Some(&endpoints), &slices).len(), 2, "both go");
    }
}
