//! Names of services, per service: what the cluster's resolver answers (the DNS specification of Kubernetes, version 1.1).

use crate::endpoints::published;
use crate::plan::Protocol;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Addresses(BTreeSet<Ipv4Addr>),
    /// Target name and port.
    Servers(BTreeSet<(String, u16)>),
    Alias(String),
}

/// All names of one service: absolute, lower case, without the final dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRecords {
    pub names: BTreeMap<String, Data>,
    /// Address → name.
    pub reverse: BTreeMap<Ipv4Addr, BTreeSet<String>>,
}

impl ServiceRecords {
    fn address(&mut self, name: &str, address: Ipv4Addr) {
        if let Data::Addresses(all) =
            self.names.entry(name.to_owned()).or_insert_with(|| Data::Addresses(BTreeSet::new()))
        {
            all.insert(address);
        }
    }

    fn server(&mut self, name: String, target: &str, port: u16) {
        if let Data::Servers(all) = self.names.entry(name).or_insert_with(|| Data::Servers(BTreeSet::new())) {
            all.insert((target.to_owned(), port));
        }
    }

    /// Some name lies below this one: it exists, though it has no data.
    pub fn has_below(&self, name: &str) -> bool {
        self.names.keys().any(|known| known.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    }
}

pub fn records(service: &Service, slices: &[impl AsRef<EndpointSlice>], domain: &str) -> ServiceRecords {
    let mut records = ServiceRecords::default();
    let (Some(spec), Some(name), Some(namespace)) =
        (&service.spec, &service.metadata.name, &service.metadata.namespace)
    else {
        return records;
    };
    let own = format!("{name}.{namespace}.svc.{domain}").to_ascii_lowercase();
    if spec.type_.as_deref() == Some("ExternalName") {
        if let Some(target) = spec.external_name.as_deref().map(|t| t.trim_end_matches('.')).filter(|t| !t.is_empty()) {
            records.names.insert(own, Data::Alias(target.to_ascii_lowercase()));
        }
        return records;
    }
    let ports: Vec<&ServicePort> = spec.ports.iter().flatten().collect();
    match spec.cluster_ip.as_deref().map(str::parse::<Ipv4Addr>) {
        Some(Ok(address)) => {
            records.address(&own, address);
            records.reverse.entry(address).or_default().insert(own.clone());
            for port in ports {
                if let (Some(name), Ok(number)) =
                    (server_name(port.name.as_deref(), port.protocol.as_deref(), &own), u16::try_from(port.port))
                {
                    records.server(name, &own, number);
                }
            }
        }
        // Headless ("None"), or not given an address yet.
        Some(Err(_)) if spec.cluster_ip.as_deref() == Some("None") => {
            headless(&mut records, &own, slices, spec.publish_not_ready_addresses == Some(true))
        }
        Some(Err(_)) | None => {}
    }
    records
}

fn headless(records: &mut ServiceRecords, own: &str, slices: &[impl AsRef<EndpointSlice>], all: bool) {
    for slice in slices.iter().map(AsRef::as_ref) {
        for (endpoint, address) in published(slice, all) {
            let host = format!("{}.{own}", host_label(endpoint, address));
            records.address(own, address);
            records.address(&host, address);
            if endpoint.hostname.is_some() {
                records.reverse.entry(address).or_default().insert(host.clone());
            }
            for port in slice.ports.iter().flatten() {
                if let (Some(name), Some(Ok(number))) =
                    (server_name(port.name.as_deref(), port.protocol.as_deref(), own), port.port.map(u16::try_from))
                {
                    records.server(name, &host, number);
                }
            }
        }
    }
}

fn host_label(endpoint: &Endpoint, address: Ipv4Addr) -> String {
    match endpoint.hostname.as_deref().filter(|h| !h.is_empty() && !h.contains('.')) {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => address.to_string().replace('.', "-"),
    }
}

/// `_http._tcp.web.shop.svc.cluster.local`; unnamed ports have none.
fn server_name(port: Option<&str>, protocol: Option<&str>, own: &str) -> Option<String> {
    let port = port.filter(|p| !p.is_empty())?.to_ascii_lowercase();
    Some(format!("_{port}._{}.{own}", Protocol::parse(protocol)?.as_str()))
}

/// The service that a name belongs to: namespace and name of `….<name>.<namespace>.svc.<domain>`.
pub fn owner<'a>(name: &'a str, domain: &str) -> Option<(&'a str, &'a str)> {
    let mut labels = name.strip_suffix(domain)?.strip_suffix(".svc.")?.rsplit('.');
    let namespace = labels.next()?;
    Some((namespace, labels.next()?))
}

/// The address in `<a-b-c-d>.<namespace>.pod.<domain>`.
pub fn pod_address(name: &str, domain: &str) -> Option<Ipv4Addr> {
    let rest = name.strip_suffix(domain)?.strip_suffix(".pod.")?;
    let (label, namespace) = rest.split_once('.')?;
    if namespace.is_empty() || namespace.contains('.') {
        return None;
    }
    label.replace('-', ".").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{service, slice};
    use serde_json::json;

    const DOMAIN: &str = "cluster.local";

    #[test]
    fn a_service_with_an_address_has_its_name_its_servers_and_its_reverse() {
        let found = records(
            &service(
                json!({"clusterIP": "10.43.1.1", "ports": [{"name": "http", "port": 80}, {"port": 81}]}),
                json!({}),
            ),
            &[slice(json!([]), &[])],
            DOMAIN,
        );
        let name = "web.shop.svc.cluster.local".to_owned();
        let ip = Ipv4Addr::new(10, 43, 1, 1);
        assert_eq!(found.names.get(&name), Some(&Data::Addresses([ip].into())));
        assert_eq!(
            found.names.get("_http._tcp.web.shop.svc.cluster.local"),
            Some(&Data::Servers([(name.clone(), 80)].into()))
        );
        assert_eq!(found.names.len(), 2);
        assert_eq!(found.reverse[&ip], [name].into());
        assert!(
            found.has_below("_tcp.web.shop.svc.cluster.local") && !found.has_below("tcp.web.shop.svc.cluster.local")
        );
    }

    #[test]
    fn a_headless_service_names_its_ready_endpoints() {
        let mut endpoints = slice(
            json!([{"name": "http", "port": 8080}]),
            &[("10.42.0.2", "n", true, true, false), ("10.42.0.3", "n", false, true, false)],
        );
        endpoints.0.endpoints.as_mut().unwrap()[0].hostname = Some("web-0".into());
        let spec = |all: bool| json!({"clusterIP": "None", "publishNotReadyAddresses": all, "ports": [{"name": "http", "port": 80}]});
        let found = records(&service(spec(false), json!({})), std::slice::from_ref(&endpoints), DOMAIN);
        assert_eq!(found.names["web.shop.svc.cluster.local"], Data::Addresses([Ipv4Addr::new(10, 42, 0, 2)].into()));
        assert_eq!(
            found.names["web-0.web.shop.svc.cluster.local"],
            Data::Addresses([Ipv4Addr::new(10, 42, 0, 2)].into())
        );
        assert_eq!(
            found.names["_http._tcp.web.shop.svc.cluster.local"],
            Data::Servers([("web-0.web.shop.svc.cluster.local".into(), 8080)].into())
        );
        let found = records(&service(spec(true), json!({})), &[endpoints], DOMAIN);
        assert!(found.names.contains_key("10-42-0-3.web.shop.svc.cluster.local"));
    }

    #[test]
    fn names_are_taken_apart() {
        for (name, expected) in [
            ("web.shop.svc.cluster.local", Some(("shop", "web"))),
            ("a._tcp.web.shop.svc.cluster.local", Some(("shop", "web"))),
            ("shop.svc.cluster.local", None),
            ("web.shop.pod.cluster.local", None),
            ("example.org", None),
        ] {
            assert_eq!(owner(name, DOMAIN), expected, "{name}");
        }
        for (name, expected) in [
            ("10-42-0-7.shop.pod.cluster.local", Some(Ipv4Addr::new(10, 42, 0, 7))),
            ("10-42-0.shop.pod.cluster.local", None),
            ("10-42-0-7.pod.cluster.local", None),
        ] {
            assert_eq!(pod_address(name, DOMAIN), expected, "{name}");
        }
        let alias = records(
            &service(json!({"type": "ExternalName", "externalName": "Example.org."}), json!({})),
            &[slice(json!([]), &[])],
            DOMAIN,
        );
        assert_eq!(alias.names["web.shop.svc.cluster.local"], Data::Alias("example.org".into()));
    }
}
