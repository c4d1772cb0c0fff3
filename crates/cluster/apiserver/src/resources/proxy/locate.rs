//! Which address a proxied request is for: `[SCHEME:]NAME[:PORT]` of a pod, a service or a node.

use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use kube_types::{meta, status};
use serde_json::{Value, json};

use super::Place;
use crate::call::{Call, Target};
use crate::error::ApiResult;
use crate::handlers::get;
use crate::keys;
use crate::object::{self, text};
use crate::respond::{self, Reply};

/// Where a kubelet listens; here it is this process.
const NODE_PORT: &str = "10250";

/// `[SCHEME:]NAME[:PORT]`
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let tls = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { tls, name, port })
    }
}

pub(super) fn place(call: &Call, target: &Target) -> ApiResult<Place> {
    let kind = target.resource.singular.as_ref();
    let asked = Asked::parse(&target.name)
        .ok_or_else(|| status::bad_request(format!("invalid {kind} request {:?}", target.name)))?;
    let own = target.named(asked.name);
    let (address, port) = match target.resource.plural.as_ref() {
        "pods" => of_pod(&object::decode(&get::find(call, &own)?.value), asked.port)?,
        "services" => of_service(call, &own, asked.port)?,
        _ => of_node(&object::decode(&get::find(call, &own)?.value), asked.port)?,
    };
    let address: IpAddr = address.parse().map_err(|_| status::bad_request("address not allowed"))?;
    if !may_be_reached(address) {
        return Err(status::bad_request("address not allowed").into());
    }
    Ok(Place { address: SocketAddr::new(address, port), tls: asked.tls })
}

/// Neither this machine's own services nor a cloud's metadata service.
fn may_be_reached(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()),
    }
}

fn number(port: &str) -> ApiResult<u16> {
    let number = port.parse().ok().filter(|&port: &u16| port > 0);
    number.ok_or_else(|| status::bad_request(format!("invalid port {port:?}")).into())
}

fn of_pod(pod: &Value, port: &str) -> ApiResult<(String, u16)> {
    let first = || {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let ports = containers.filter_map(|container| container.pointer("/ports/0/containerPort")?.as_u64());
        ports.filter_map(|port| u16::try_from(port).ok()).next().unwrap_or(80)
    };
    let port = if port.is_empty() { first() } else { number(port)? };
    Ok((text(pod, "/status/podIP").to_owned(), port))
}

fn of_node(node: &Value, port: &str) -> ApiResult<(String, u16)> {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let internal = addresses.filter(|one| one["type"] == "InternalIP").filter_map(|one| one["address"].as_str()).next();
    Ok((internal.unwrap_or_default().to_owned(), number(if port.is_empty() { NODE_PORT } else { port })?))
}

/// A ready endpoint of the service, at the port that the service's own port leads to.
fn of_service(call: &Call, target: &Target, port: &str) -> ApiResult<(String, u16)> {
    let service = object::decode(&get::find(call, target)?.value);
    let port_name = service_port(&service, port).ok_or_else(|| {
        status::service_unavailable(format!("no service port {port:?} found for service {:?}", target.name))
    })?;
    let prefix = keys::known("discovery.k8s.io", "endpointslices", &target.namespace, "");
    let slices = call.server.store.range(&prefix, None, 0, None)?.items;
    let slices = slices.iter().map(|slice| object::decode(&slice.value));
    let own = slices.filter(|slice| meta::label(slice, "kubernetes.io/service-name") == Some(target.name.as_str()));
    let mut found: Vec<(String, u16)> = Vec::new();
    for slice in own {
        found.extend(ready(&slice, &port_name));
    }
    if found.is_empty() {
        let text = format!("no endpoints available for service {:?}", target.name);
        return Err(status::service_unavailable(&text).into());
    }
    Ok(found.swap_remove(rand::random_range(0..found.len())))
}

/// The name of the service's port that is asked for by name or number; of its only (or first) one when none is.
fn service_port(service: &Value, asked: &str) -> Option<String> {
    let ports = service["spec"]["ports"].as_array()?;
    let name = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
    if asked.is_empty() {
        return ports.first().map(name);
    }
    let number = asked.parse::<u64>().ok();
    ports.iter().find(|port| port["name"] == asked || (number.is_some() && port["port"].as_u64() == number)).map(name)
}

fn ready(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports
        .filter(|port| port["name"].as_str().unwrap_or_default() == port_name)
        .filter_map(|port| u16::try_from(port["port"].as_u64()?).ok())
        .next();
    let Some(port) = port else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|one| one.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true))
        .filter_map(|one| one.pointer("/addresses/0")?.as_str().map(|address| (address.to_owned(), port)))
        .collect()
}

/// What the node agent itself answers on a kubelet's port: its health and its pods. `None`: another port is meant.
pub(super) fn node_itself(call: &Call, target: &Target, rest: &str) -> ApiResult<Option<Reply>> {
    let Some(asked) = Asked::parse(&target.name).filter(|asked| matches!(asked.port, "" | NODE_PORT)) else {
        return Ok(None);
    };
    let node = target.named(asked.name);
    get::find(call, &node)?;
    Ok(Some(match rest.trim_end_matches('/') {
        "/healthz" => respond::with_type(StatusCode::OK, "text/plain; charset=utf-8", "ok"),
        "/pods" | "/runningpods" => respond::json(StatusCode::OK, &pods_of(call, asked.name)?),
        _ => respond::with_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
    }))
}

fn pods_of(call: &Call, node: &str) -> ApiResult<Value> {
    let items = call.server.store.range(&keys::known("", "pods", "", ""), None, 0, None)?.items;
    let pods: Vec<Value> = items
        .iter()
        .map(|item| object::decode(&item.value))
        .filter(|pod| text(pod, "/spec/nodeName") == node)
        .collect();
    Ok(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_a_scheme_and_a_port() {
        let asked = |tls, name, port| Some(Asked { tls, name, port });
        assert_eq!(Asked::parse("a"), asked(false, "a", ""));
        assert_eq!(Asked::parse("a:80"), asked(false, "a", "80"));
        assert_eq!(Asked::parse("https:a:"), asked(true, "a", ""));
        assert_eq!(Asked::parse("http:a:web"), asked(false, "a", "web"));
        for wrong in ["", ":80", "ftp:a:1", "a:b:c:d"] {
            assert_eq!(Asked::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn loopback_link_local_and_metadata_addresses_are_out_of_reach() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "::",
            "::ffff:127.0.0.1",
        ] {
            assert!(!may_be_reached(address.parse().unwrap()), "{address}");
        }
        for address in ["10.42.0.7", "192.168.1.1", "fd00::7"] {
            assert!(may_be_reached(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_services_port_is_found_by_name_number_or_as_the_first() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]}});
        for (asked, name) in [("", Some("web")), ("admin", Some("admin")), ("81", Some("admin")), ("82", None)] {
            assert_eq!(service_port(&service, asked).as_deref(), name, "{asked}");
        }
        let slice = json!({
            "ports": [{"name": "web", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.42.0.5"], "conditions": {"ready": true}},
                {"addresses": ["10.42.0.6"], "conditions": {"ready": false}},
            ],
        });
        assert_eq!(ready(&slice, "web"), [("10.42.0.5".to_owned(), 8080)]);
        assert!(ready(&slice, "admin").is_empty());
    }
}
