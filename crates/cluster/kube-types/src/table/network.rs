//! Services, endpoints, ingresses, network policies.

use super::look::{self, NONE, UNSET, int_of, items, joined, or, plain, str_of, strings};
use super::{View, text, wide};
use jiff::Timestamp;
use serde_json::Value;

static SERVICE: View = View {
    columns: &[
        text("Name"),
        text("Type"),
        text("Cluster-IP"),
        text("External-IP"),
        text("Port(s)"),
        text("Age"),
        wide("Selector"),
    ],
    row: service,
};
static ENDPOINTS: View = View {
    columns: &[text("Name"), text("Endpoints"), text("Age")],
    row: |object, now| vec![look::name(object), endpoints(object).into(), look::age(object, now)],
};
static SLICE: View =
    View { columns: &[text("Name"), text("AddressType"), text("Ports"), text("Endpoints"), text("Age")], row: slice };
static INGRESS: View = View {
    columns: &[text("Name"), text("Class"), text("Hosts"), text("Address"), text("Ports"), text("Age")],
    row: ingress,
};
static INGRESS_CLASS: View = View {
    columns: &[text("Name"), text("Controller"), text("Parameters"), text("Age")],
    row: |object, now| {
        let parameters = &object["spec"]["parameters"];
        let shown = match (str_of(&parameters["kind"]), str_of(&parameters["apiGroup"])) {
            ("", _) => NONE.to_owned(),
            (kind, "") => format!("{kind}/{}", str_of(&parameters["name"])),
            (kind, group) => format!("{kind}.{group}/{}", str_of(&parameters["name"])),
        };
        vec![look::name(object), object["spec"]["controller"].clone(), shown.into(), look::age(object, now)]
    },
};
static POLICY: View = View {
    columns: &[text("Name"), text("Pod-Selector"), text("Age")],
    row: |object, now| {
        vec![look::name(object), look::selector(&object["spec"]["podSelector"]).into(), look::age(object, now)]
    },
};
static ADDRESS: View = View {
    columns: &[text("Name"), text("ParentRef"), text("Age")],
    row: |object, now| {
        let parent = &object["spec"]["parentRef"];
        let parts = ["resource", "namespace", "name"].map(|field| str_of(&parent[field]));
        let shown: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        vec![look::name(object), shown.join("/").into(), look::age(object, now)]
    },
};
static RANGE: View = View {
    columns: &[text("Name"), text("CIDRs"), text("Age")],
    row: |object, now| {
        vec![
            look::name(object),
            strings(&object["spec"]["cidrs"]).collect::<Vec<_>>().join(",").into(),
            look::age(object, now),
        ]
    },
};

pub(super) fn view(group: &str, kind: &str) -> Option<&'static View> {
    Some(match (group, kind) {
        ("", "Service") => &SERVICE,
        ("", "Endpoints") => &ENDPOINTS,
        ("discovery.k8s.io", "EndpointSlice") => &SLICE,
        ("networking.k8s.io", "Ingress") => &INGRESS,
        ("networking.k8s.io", "IngressClass") => &INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => &POLICY,
        ("networking.k8s.io", "IPAddress") => &ADDRESS,
        ("networking.k8s.io", "ServiceCIDR") => &RANGE,
        _ => return None,
    })
}

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let cluster_ip = items(&spec["clusterIPs"]).first().unwrap_or(&spec["clusterIP"]);
    let ports = items(&spec["ports"]).iter().map(|port| match int_of(&port["nodePort"]) {
        0 => format!("{}/{}", int_of(&port["port"]), str_of(&port["protocol"])),
        node_port => format!("{}:{node_port}/{}", int_of(&port["port"]), str_of(&port["protocol"])),
    });
    vec![
        look::name(object),
        spec["type"].clone(),
        or(cluster_ip, NONE).into(),
        external_address(object).into(),
        joined(ports).into(),
        look::age(object, now),
        look::labels(&spec["selector"]).into(),
    ]
}

fn external_address(service: &Value) -> String {
    let spec = &service["spec"];
    let given: Vec<String> = strings(&spec["externalIPs"]).collect();
    match str_of(&spec["type"]) {
        "ExternalName" => str_of(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let mut all: Vec<String> = load_balancer_addresses(&service["status"]);
            all.extend(given);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ => joined(given.into_iter()),
    }
}

fn load_balancer_addresses(status: &Value) -> Vec<String> {
    let ingress = items(&status["loadBalancer"]["ingress"]).iter();
    let addresses =
        ingress.map(|i| or(&i["ip"], str_of(&i["hostname"])).to_owned()).filter(|address| !address.is_empty());
    addresses.collect()
}

/// The first three `ip:port`, then how many more there are.
fn endpoints(object: &Value) -> String {
    const SHOWN: usize = 3;
    let mut all = Vec::new();
    for subset in items(&object["subsets"]) {
        let ports = items(&subset["ports"]);
        for address in items(&subset["addresses"]) {
            let ip = str_of(&address["ip"]);
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{ip}:{}", int_of(&port["port"]))));
        }
    }
    shortened(all, SHOWN)
}

fn shortened(mut all: Vec<String>, shown: usize) -> String {
    let more = all.len().saturating_sub(shown);
    all.truncate(shown);
    match (all.is_empty(), more) {
        (true, _) => NONE.to_owned(),
        (false, 0) => all.join(","),
        (false, more) => format!("{} + {more} more...", all.join(",")),
    }
}

fn slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = items(&object["ports"]).iter();
    let ports: Vec<String> =
        ports.map(|port| port["port"].as_i64().map_or("*".to_owned(), |n| n.to_string())).collect();
    let ports = if ports.is_empty() { UNSET.to_owned() } else { shortened(ports, 3) };
    let addresses: Vec<String> =
        items(&object["endpoints"]).iter().flat_map(|endpoint| strings(&endpoint["addresses"])).collect();
    let addresses = if addresses.is_empty() { UNSET.to_owned() } else { shortened(addresses, 3) };
    vec![look::name(object), object["addressType"].clone(), ports.into(), addresses.into(), look::age(object, now)]
}

fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let hosts: Vec<String> = items(&spec["rules"])
        .iter()
        .map(|rule| str_of(&rule["host"]).to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = if hosts.is_empty() { "*".to_owned() } else { shortened(hosts, 3) };
    let ports = if items(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
    let class = match plain(&spec["ingressClassName"]) {
        class if class.is_empty() => {
            crate::meta::annotation(object, "kubernetes.io/ingress.class").unwrap_or(NONE).to_owned()
        }
        class => class,
    };
    vec![
        look::name(object),
        class.into(),
        hosts.into(),
        load_balancer_addresses(&object["status"]).join(",").into(),
        ports.into(),
        look::age(object, now),
    ]
}
