//! Services: cluster addresses and node ports.
//!
//! Invariant: an address or port belongs to one service, because its marker key is written and removed in the service's own
//! transaction, with a guard that it was free.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use kube_types::{FieldError, meta, status};
use serde_json::{Value, json};
use store::{Compare, Op};

use super::Effects;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::keys;
use crate::object::text;

/// 10.43.0.0/16 without the network and the broadcast address.
const RANGE_START: u32 = u32::from_be_bytes([10, 43, 0, 0]);
const RANGE_SIZE: u32 = 1 << 16;
/// The lowest addresses are left for those who ask for one (the `kubernetes` service, cluster DNS).
const DYNAMIC_FROM: u32 = 256;
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

pub(super) fn on_create(call: &Call, target: &Target, service: &mut Value, effects: &mut Effects) -> ApiResult<()> {
    allocate(call, target, None, service, effects)
}

pub(super) fn on_update(
    call: &Call,
    target: &Target,
    old: &Value,
    new: &mut Value,
    effects: &mut Effects,
) -> ApiResult<()> {
    keep_allocations(old, new);
    allocate(call, target, Some(old), new, effects)
}

pub(super) fn on_remove(service: &Value) -> Effects {
    let ops = claims(service).into_iter().map(|key| Op::Delete { key }).collect();
    Effects { compare: Vec::new(), ops }
}

fn kind(service: &Value) -> &str {
    match text(service, "/spec/type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

fn takes_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

/// An update that leaves the address or a node port out means the ones it has.
fn keep_allocations(old: &Value, new: &mut Value) {
    if kind(new) == "ExternalName" {
        if let Some(spec) = new["spec"].as_object_mut() {
            spec.retain(|field, _| field != "clusterIP" && field != "clusterIPs");
        }
    } else if text(new, "/spec/clusterIP").is_empty() && kind(old) != "ExternalName" {
        new["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
        new["spec"]["clusterIPs"] = old["spec"]["clusterIPs"].clone();
    }
    let keep = takes_node_ports(new);
    let old_ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = old_ports.iter().find(|old| old["port"] == port["port"] && protocol(old) == protocol(port));
        match (keep, same.and_then(|same| same.get("nodePort"))) {
            (true, Some(number)) if port["nodePort"].as_u64().unwrap_or(0) == 0 => port["nodePort"] = number.clone(),
            (true, _) => {}
            (false, number) => {
                // Left over from the old type, not asked for.
                if port.get("nodePort") == number
                    && let Some(port) = port.as_object_mut()
                {
                    port.remove("nodePort");
                }
            }
        }
    }
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

fn allocate(
    call: &Call,
    target: &Target,
    old: Option<&Value>,
    service: &mut Value,
    effects: &mut Effects,
) -> ApiResult<()> {
    let held = old.map(claims).unwrap_or_default();
    let is_free = |key: &Bytes| held.contains(key) || call.server.store.get(key).is_none();
    if kind(service) != "ExternalName" {
        allocate_address(target, service, &is_free)?;
    }
    if takes_node_ports(service) {
        allocate_ports(target, service, &is_free)?;
    }
    let wanted = claims(service);
    let owner = Bytes::from(format!("{}/{}", target.namespace, meta::name(service)));
    for key in wanted.difference(&held) {
        effects.compare.push(Compare { key: key.clone(), mod_revision: 0 });
        effects.ops.push(Op::Put { key: key.clone(), value: owner.clone() });
    }
    effects.ops.extend(held.difference(&wanted).map(|key| Op::Delete { key: key.clone() }));
    Ok(())
}

/// The marker keys of everything that the service holds.
fn claims(service: &Value) -> BTreeSet<Bytes> {
    let mut claims = BTreeSet::new();
    if let Ok(address) = text(service, "/spec/clusterIP").parse::<IpAddr>() {
        claims.insert(keys::cluster_ip(address));
    }
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        if let Some(number) =
            port["nodePort"].as_u64().and_then(|number| u16::try_from(number).ok()).filter(|&number| number > 0)
        {
            claims.insert(keys::node_port(number, protocol(port)));
        }
    }
    claims
}

fn refuse(target: &Target, service: &Value, error: FieldError) -> crate::error::ApiError {
    status::invalid(&target.resource, meta::name(service), &[error]).into()
}

fn allocate_address(target: &Target, service: &mut Value, is_free: &dyn Fn(&Bytes) -> bool) -> ApiResult<()> {
    let asked = match text(service, "/spec/clusterIP") {
        "" => service["spec"]["clusterIPs"][0].as_str().unwrap_or_default().to_owned(),
        address => address.to_owned(),
    };
    let address = match asked.as_str() {
        "None" => asked,
        "" => {
            let start = rand::random_range(DYNAMIC_FROM..RANGE_SIZE - 1);
            let span = RANGE_SIZE - 1 - DYNAMIC_FROM;
            (0..span)
                .map(|step| DYNAMIC_FROM + (start - DYNAMIC_FROM + step) % span)
                .map(|offset| Ipv4Addr::from(RANGE_START + offset))
                .find(|address| is_free(&keys::cluster_ip(IpAddr::V4(*address))))
                .ok_or_else(|| status::internal("failed to allocate a serviceIP: range is full"))?
                .to_string()
        }
        _ => {
            let range = "the provided IP is not in the valid range. The range of valid IPs is 10.43.0.0/16";
            let parsed: Option<Ipv4Addr> = asked.parse().ok();
            let inside = parsed
                .is_some_and(|address| (1..RANGE_SIZE - 1).contains(&u32::from(address).wrapping_sub(RANGE_START)));
            let detail = match parsed {
                None => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                Some(_) if !inside => range,
                Some(address) if !is_free(&keys::cluster_ip(IpAddr::V4(address))) => "provided IP is already allocated",
                Some(_) => "",
            };
            if !detail.is_empty() {
                let text = if parsed.is_some() {
                    format!("failed to allocate IP {asked}: {detail}")
                } else {
                    detail.to_owned()
                };
                return Err(refuse(target, service, FieldError::invalid("spec.clusterIPs", json!([asked]), text)));
            }
            asked
        }
    };
    service["spec"]["clusterIPs"] = json!([address]);
    service["spec"]["clusterIP"] = address.into();
    if !service["spec"]["ipFamilies"].is_array() {
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
    }
    if text(service, "/spec/ipFamilyPolicy").is_empty() {
        service["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    }
    Ok(())
}

fn allocate_ports(target: &Target, service: &mut Value, is_free: &dyn Fn(&Bytes) -> bool) -> ApiResult<()> {
    let mut taken: BTreeSet<Bytes> = BTreeSet::new();
    let mut ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    // Those that were asked for first, so that none of them is given away.
    for (index, port) in ports.iter().enumerate() {
        let Some(number) = port["nodePort"].as_u64().filter(|&number| number > 0) else {
            continue;
        };
        let path = format!("spec.ports[{index}].nodePort");
        let Some(number) = u16::try_from(number).ok().filter(|number| NODE_PORTS.contains(number)) else {
            let text = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            return Err(refuse(target, service, FieldError::invalid(path, number, text)));
        };
        let key = keys::node_port(number, protocol(port));
        if !is_free(&key) {
            return Err(refuse(
                target,
                service,
                FieldError::invalid(path, number, "provided port is already allocated"),
            ));
        }
        taken.insert(key);
    }
    for port in ports.iter_mut().filter(|port| port["nodePort"].as_u64().unwrap_or(0) == 0) {
        let protocol = protocol(port).to_owned();
        let span = u32::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
        let start = rand::random_range(0..span);
        let free = (0..span)
            .map(|step| (start + step) % span)
            .filter_map(|offset| u16::try_from(u32::from(*NODE_PORTS.start()) + offset).ok())
            .find(|&number| {
                let key = keys::node_port(number, &protocol);
                !taken.contains(&key) && is_free(&key)
            });
        let number = free.ok_or_else(|| status::internal("failed to allocate a nodePort: range is full"))?;
        taken.insert(keys::node_port(number, &protocol));
        port["nodePort"] = number.into();
    }
    service["spec"]["ports"] = ports.into();
    Ok(())
}
