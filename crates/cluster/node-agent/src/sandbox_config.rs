//! Pod spec → CRI sandbox config.
//!
//! Used when a sandbox or a container is made. Pure but for the node's resolver file, which the caller reads.
//! Invariant: the same pod gives the same config, so an adopted sandbox and a new one do not differ.

use std::collections::HashMap;

use cri::v1;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::labels;

/// What the cluster tells every pod.
#[derive(Debug, Clone)]
pub(crate) struct ClusterDns {
    /// Address of the cluster's DNS server.
    pub(crate) server: Option<String>,
    /// For example `cluster.local`.
    pub(crate) domain: String,
}

pub(crate) fn labels_of(pod: &Pod) -> HashMap<String, String> {
    let metadata = &pod.metadata;
    let mut out: HashMap<String, String> = metadata.labels.clone().unwrap_or_default().into_iter().collect();
    let own = [
        (labels::POD_NAME, &metadata.name),
        (labels::POD_NAMESPACE, &metadata.namespace),
        (labels::POD_UID, &metadata.uid),
    ];
    for (key, value) in own {
        out.insert(key.to_owned(), value.clone().unwrap_or_default());
    }
    out
}

/// The host name of a pod: its `hostname`, or its name cut to 63 characters.
pub(crate) fn hostname(pod: &Pod, cluster_domain: &str) -> String {
    let spec = pod.spec.as_ref();
    let name = spec
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| pod.metadata.name.clone().unwrap_or_default());
    let short: String = name.chars().take(63).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|name| !name.is_empty());
    match (subdomain, spec.and_then(|spec| spec.set_hostname_as_fqdn)) {
        (Some(subdomain), Some(true)) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            format!("{short}.{subdomain}.{namespace}.svc.{cluster_domain}")
        }
        _ => short,
    }
}

pub(crate) fn namespaces(spec: &PodSpec) -> v1::NamespaceOption {
    let node_or = |on_node: Option<bool>, other: v1::NamespaceMode| {
        if on_node == Some(true) { v1::NamespaceMode::Node } else { other }.into()
    };
    let pid =
        if spec.share_process_namespace == Some(true) { v1::NamespaceMode::Pod } else { v1::NamespaceMode::Container };
    v1::NamespaceOption {
        network: node_or(spec.host_network, v1::NamespaceMode::Pod),
        pid: node_or(spec.host_pid, pid),
        ipc: node_or(spec.host_ipc, v1::NamespaceMode::Pod),
        ..Default::default()
    }
}

pub(crate) fn build(
    pod: &Pod,
    attempt: u32,
    cgroup_parent: &str,
    log_directory: &str,
    dns: &ClusterDns,
    host_resolv_conf: &str,
) -> v1::PodSandboxConfig {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let metadata = &pod.metadata;
    let uid = metadata.uid.clone().unwrap_or_default();
    let sysctls = spec
        .security_context
        .iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|one| (one.name.clone(), one.value.clone()))
        .collect();
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: metadata.name.clone().unwrap_or_default(),
            uid: uid.clone(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            attempt,
        }),
        hostname: hostname(pod, &dns.domain),
        log_directory: log_directory.to_owned(),
        dns_config: Some(dns_config(pod, spec, dns, host_resolv_conf)),
        port_mappings: port_mappings(spec),
        labels: labels_of(pod),
        annotations: metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            // With a slash before it: a relative path would be below the runtime's own cgroup.
            cgroup_parent: format!("/{}/pod{uid}", cgroup_parent.trim_matches('/')),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(spec)),
                ..Default::default()
            }),
            sysctls,
            ..Default::default()
        }),
        windows: None,
    }
}

fn port_mappings(spec: &PodSpec) -> Vec<v1::PortMapping> {
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    let ports = spec.containers.iter().flat_map(|one| one.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                Some(_) | None => v1::Protocol::Tcp,
            };
            Some(v1::PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port: port.host_port.filter(|port| *port > 0)?,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// A resolver file in parts.
fn parse_resolv_conf(text: &str) -> v1::DnsConfig {
    let mut out = v1::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
            Some("search") => out.searches = rest(words),
            Some("options") => out.options = rest(words),
            Some(_) | None => {}
        }
    }
    out
}

fn dns_config(pod: &Pod, spec: &PodSpec, dns: &ClusterDns, host: &str) -> v1::DnsConfig {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let on_host = spec.host_network == Some(true);
    let cluster = matches!((policy, on_host), ("ClusterFirst", false) | ("ClusterFirstWithHostNet", _));
    let of_host = parse_resolv_conf(host);
    let mut out = match (policy, &dns.server) {
        ("None", _) => v1::DnsConfig::default(),
        (_, Some(server)) if cluster => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let domain = &dns.domain;
            let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            v1::DnsConfig {
                servers: vec![server.clone()],
                searches: own.into_iter().chain(of_host.searches).collect(),
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => of_host,
    };
    if let Some(own) = &spec.dns_config {
        out.servers.extend(own.nameservers.iter().flatten().cloned());
        out.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            // The pod's word replaces the cluster's.
            out.options.retain(|one| one.split(':').next() != Some(&name));
            out.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    let mut seen = std::collections::HashSet::new();
    out.searches.retain(|one| seen.insert(one.clone()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        let value = serde_json::json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec});
        serde_json::from_value(value).unwrap()
    }

    fn dns() -> ClusterDns {
        ClusterDns { server: Some("10.43.0.10".into()), domain: "cluster.local".into() }
    }

    #[test]
    fn a_pod_asks_the_cluster_for_names_unless_its_policy_says_otherwise() {
        let host = "search example.org\nnameserver 9.9.9.9\noptions rotate\n";
        for (spec, servers, searches, options) in [
            (
                serde_json::json!({"containers": []}),
                vec!["10.43.0.10"],
                vec!["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"],
                vec!["ndots:5"],
            ),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "Default"}),
                vec!["9.9.9.9"],
                vec!["example.org"],
                vec!["rotate"],
            ),
            (
                serde_json::json!({"containers": [], "hostNetwork": true}),
                vec!["9.9.9.9"],
                vec!["example.org"],
                vec!["rotate"],
            ),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
                vec!["1.1.1.1"],
                vec![],
                vec!["ndots:2"],
            ),
        ] {
            let pod = pod(spec);
            let config = dns_config(&pod, pod.spec.as_ref().unwrap(), &dns(), host);
            assert_eq!(config.servers, servers);
            assert_eq!(config.searches, searches);
            assert_eq!(config.options, options);
        }
    }

    #[test]
    fn only_host_ports_become_port_mappings() {
        let pod = pod(
            serde_json::json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 53, "hostPort": 5353, "protocol": "UDP"}]}]}),
        );
        let mappings = port_mappings(pod.spec.as_ref().unwrap());
        assert_eq!(mappings.len(), 1);
        assert_eq!((mappings[0].host_port, mappings[0].protocol()), (5353, v1::Protocol::Udp));
    }
}
